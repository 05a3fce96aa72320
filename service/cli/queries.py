"""Commands that only look: list, show, watch, front."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from service.client import Client

SearchId = Annotated[str, typer.Argument(metavar="ID", help="The search's id, or its first characters.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PANEL = "Searches"


def register(app: typer.Typer) -> None:
    app.command("list", rich_help_panel=PANEL)(list_searches)
    for function in (show, watch, front):
        app.command(function.__name__, rich_help_panel=PANEL)(function)


def list_searches(
    status: Annotated[str | None, typer.Option(help="Only these: queued, running, …; comma-separated.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List searches, newest first."""
    from itertools import islice

    from service.client import Client

    with Client() as client:
        found = list(islice(client.searches(status=status, tag=tag, name=name, limit=min(limit, 200)), limit))
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found:
        typer.echo("No searches. Submit one: attune submit examples/demo.yaml --watch", err=True)
        return
    _print_searches(found)


def _print_searches(found: list[dict[str, Any]]) -> None:
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.text import Text

    from service import formats

    rows = table("id", "name", "status", "trials", "best top-1", "created", "best placement")
    rows.columns[0].no_wrap = rows.columns[5].no_wrap = rows.columns[6].no_wrap = True
    rows.columns[1].min_width = 16
    shown = _shortest_prefix([search["id"] for search in found])
    for search in found:
        best, counts = search["best"], search["counts"]
        created = formats.age(datetime.fromisoformat(search["created_at"]), datetime.now(UTC))
        done = f"{counts['succeeded'] + counts['reused']}/{max(search['spec']['budget']['trials'], counts['total'])}"
        done += f", {counts['stopped']} stopped" if counts["stopped"] else ""
        placement = Text(best["label"] if best else formats.MISSING)
        rows.add_row(
            search["id"][:shown], Text(search["name"]), _status(search["status"]), done,
            formats.percent(best and best["top1"]), created, placement,
        )  # fmt: skip
    Console().print(rows)


def _shortest_prefix(ids: list[str]) -> int:
    """Characters that tell these ids apart, at least eight."""
    length = 8
    while length < 36 and len({text[:length] for text in ids}) < len(ids):
        length += 1
    return length


def _status(status: str) -> Any:
    from rich.text import Text

    styles = {
        "running": "green",
        "failed": "red",
        "succeeded": "bold",
        "queued": "bright_black",
        "cancelled": "bright_black",
    }
    return Text(status, style=styles.get(status, ""))


def show(id: SearchId, as_json: AsJson = False) -> None:
    """Show one search: state, counts and the request."""
    from service.client import Client

    with Client() as client:
        search = client.find(id)
        progress = client.progress(search["id"])
    if as_json:
        typer.echo(json.dumps(search))
        return
    _print_search(search, progress, client.url)


def _print_search(search: dict[str, Any], progress: dict[str, Any], url: str) -> None:
    import yaml
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from service import formats

    console = Console(highlight=False)
    console.print(Text(search["name"], style="bold"), _status(search["status"]), sep="   ")
    counts = ", ".join(f"{count} {name}" for name, count in search["counts"].items() if count and name != "total")
    rows = {
        "id": search["id"],
        "phase": search["phase"],
        "waits": search["waiting_reason"],
        "error": (search["error"] or {}).get("message"),
        "trials": counts or "none yet",
        "best": search["best"] and f"{formats.percent(search['best']['top1'])}  {search['best']['label']}",
        "hypervolume": search["hypervolume"] and f"{search['hypervolume']:.4f}",
        "ran for": progress["elapsed_seconds"] and formats.duration(progress["elapsed_seconds"]),
        "left": progress["seconds_left"] and formats.roughly(progress["seconds_left"]),
        "page": f"{url}/searches/{search['id']}",
    }
    lines = table("", "")
    lines.show_header = False
    for name, value in rows.items():
        if value:
            lines.add_row(Text(name, style="bright_black"), Text(str(value)))
    console.print(lines)
    text = yaml.safe_dump(search["spec"], sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    console.print(Padding(Text(text.rstrip(), style="bright_black"), (1, 0, 0, 2)))


def watch(id: SearchId, as_json: AsJson = False) -> None:
    """Follow a search until it has ended; the exit code says whether it succeeded."""
    from service.cli.watching import follow
    from service.client import Client

    with Client() as client:
        raise typer.Exit(follow(client, client.find(id), as_json=as_json))


def front(
    id: SearchId,
    x: Annotated[str | None, typer.Option(help="With --y: another metric than the search's objectives.")] = None,
    y: Annotated[str | None, typer.Option(help="With --x: the other metric.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the Pareto front, with the baseline and each placement's gain over it."""
    from service.client import Client

    with Client() as client:
        search = client.find(id)
        axes = {name: metric for name, metric in (("x", x), ("y", y)) if metric}
        found = client.front(search["id"], **axes)
        if as_json:
            typer.echo(json.dumps(found))
            return
        view = front_view(client, search, found)
    from rich.console import Console

    from service.cli.drawing import front_report

    Console().print(front_report(view, finished=True))


def front_view(client: Client, search: dict[str, Any], found: dict[str, Any]) -> Any:
    """The front with its placements drawn for the size of the search's images."""
    from service.summaries import front_view as view
    from service.summaries import input_shape

    return view(found, input_shape(search["spec"], client.catalog("datasets")["items"]))


def table(*headings: str) -> Table:
    """A table without lines."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table
