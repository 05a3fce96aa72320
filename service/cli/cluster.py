"""`attune cluster`: the machines, and who runs what on them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from service.cli.queries import table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PANEL = "Run attune"
MOST_TRIALS = 40
MOST_QUEUED = 10
Json = dict[str, Any]


def register(app: typer.Typer) -> None:
    app.command("cluster", rich_help_panel=PANEL)(cluster)


def cluster(as_json: AsJson = False) -> None:
    """Show the nodes with their slots, who runs what, and what waits."""
    from service.client import Client

    with Client() as client:
        found = client.cluster()
    if as_json:
        typer.echo(json.dumps(found))
        return
    _print(found)


def _print(found: Json) -> None:
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(_headline(found), style="bold"))
    sections = {
        "Nodes": _nodes(found["nodes"]),
        "Searches": _drivers(found["drivers"]),
        "Trials": _trials(found),
        "Queue": _queue(found),
    }
    for title, parts in sections.items():
        if parts:
            console.print(Padding(Group(Text(title, style="bold"), *parts), (1, 0, 0, 0)))


def _headline(found: Json) -> str:
    from service.formats import plural

    if not found["nodes"]:
        return "No node has joined: start a dispatcher with `attune serve` or `attune dispatch`."
    gpus = f", {found['gpus']:g} GPU{'' if found['gpus'] == 1 else 's'}" if found["gpus"] else ""
    waiting = found["searches"]["queued"]
    return (
        f"{plural(len([node for node in found['nodes'] if node['alive']]), 'node')} with "
        f"{plural(found['slots'], 'slot')}{gpus} · {plural(found['running'], 'trial')} running · "
        f"{plural(found['searches']['running'], 'search')} running, {waiting} waiting · "
        f"{plural(len(found['dispatchers']), 'dispatcher')}"
    )


def _nodes(nodes: Iterable[Json]) -> list[Any]:
    from rich.text import Text

    from service.formats import duration

    rows = table("node", "id", "CPUs", "GPUs", "slots", "running", "")
    problems: list[Any] = []
    for node in nodes:
        state = Text("") if node["alive"] else Text(f"silent for {duration(node['silent_seconds'])}", style="red")
        if node["storage_problem"]:
            state = Text("sees another store", style="red")
            problems.append(Text(node["storage_problem"], style="red"))
        numbers = [f"{node['cpus']:g}", f"{node['gpus']:g}", str(node["slots"]), str(node["running"])]
        rows.add_row(Text(node["host"] or "?"), node["id"][:8], *numbers, state)
    return [rows, *problems] if rows.row_count else []


def _drivers(drivers: Iterable[Json]) -> list[Any]:
    from rich.text import Text

    from service.formats import roughly

    rows = table("id", "name", "driver", "attempt", "slots", "left", "")
    for driver in drivers:
        where = f"{driver['host']}:{driver['pid']}" if driver["host"] else f"starting at {driver['dispatcher']}"
        left = "" if driver["seconds_left"] is None else roughly(driver["seconds_left"])
        state = Text("lost, to be taken over", style="red") if driver["lost"] else Text("")
        shares = f"{driver['running']} of {driver['quota']}"
        rows.add_row(
            driver["search_id"][:13], Text(driver["name"]), Text(where), str(driver["attempt"]), shares, left, state
        )
    return [rows] if rows.row_count else []


def _trials(found: Json) -> list[Any]:
    from datetime import UTC, datetime

    from rich.text import Text

    from service.formats import duration

    rows = table("node", "search", "trial", "epoch", "for", "placement")
    hosts = {node["id"]: node["host"] or node["id"][:8] for node in found["nodes"]}
    placed = [(hosts[node["id"]], trial) for node in found["nodes"] for trial in node["trials"]]
    placed += [("–", trial) for trial in found["unplaced"]]
    now = datetime.now(UTC)
    for host, trial in placed[:MOST_TRIALS]:
        since = duration((now - datetime.fromisoformat(trial["started_at"])).total_seconds())
        again = f", try {trial['retries'] + 1}" if trial["retries"] else ""
        epoch = f"{trial['epochs']}/{trial['epochs_planned']}{again}"
        rows.add_row(
            Text(host), trial["search_id"][:13], f"#{trial['number']}", epoch, since, Text(trial["label"], no_wrap=True)
        )
    more = found["running"] - rows.row_count
    rest = Counter(host for host, _ in placed[MOST_TRIALS:])
    where = f" ({', '.join(f'{count} on {host}' for host, count in rest.most_common(5))})" if rest else ""
    notes = [Text(f"and {more} more{where}", style="bright_black")] if more > 0 else []
    return [rows, *notes] if rows.row_count else []


def _queue(found: Json) -> list[Any]:
    from rich.text import Text

    from service.formats import duration

    rows = table("id", "name", "priority", "since", "waits for")
    for search in found["queued"][:MOST_QUEUED]:
        why = Text(search["waiting_reason"] or "its turn and a free slot")
        rows.add_row(
            search["id"][:13], Text(search["name"]), str(search["priority"]), duration(search["waiting_seconds"]), why
        )
    more = found["searches"]["queued"] - rows.row_count
    notes = [Text(f"and {more} more", style="bright_black")] if more > 0 else []
    return [rows, *notes] if rows.row_count else []
