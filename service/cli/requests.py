"""Commands that change something: submit, edit, extend, retry, cancel, pause, resume, delete."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.failures import refuse, tell_waiting

if TYPE_CHECKING:
    from service.client import Client

SearchId = Annotated[str, typer.Argument(metavar="ID", help="The search's id, or its first characters.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow it until it has ended.")]
PANEL = "Searches"


def register(app: typer.Typer) -> None:
    for function in (submit, edit, extend, retry, cancel, pause, resume, delete):
        app.command(function.__name__, rich_help_panel=PANEL)(function)


def submit(
    file: Annotated[str, typer.Argument(help="The request in YAML or JSON; - reads it from the standard input.")],
    watch: Watch = False,
    key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Repeating it never starts a second search.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a search."""
    from service.client import Client

    spec = read_request(file)
    with Client(on_wait=tell_waiting) as client:
        _queued(client, client.submit(spec, key), watch, as_json)


def edit(
    id: SearchId,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A tag; repeat it for several. They replace those of now.")
    ] = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Take all tags away.")] = False,
    priority: Annotated[int | None, typer.Option(help="0 to 9; a higher one gets more slots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rename a search, tag it, or change its priority, also while it runs."""
    from service.client import Client

    if tag and no_tags:
        raise refuse("Say --tag or --no-tags, not both.")
    tags = [] if no_tags else tag
    if name is None and tags is None and priority is None:
        raise refuse("Say what to change: --name, --tag, --no-tags or --priority.")
    with Client() as client:
        changed = client.edit(client.find(id)["id"], name=name, tags=tags, priority=priority)
    typer.echo(json.dumps(changed) if as_json else f"Changed {changed['id']}.")


def extend(
    id: SearchId,
    trials: Annotated[int | None, typer.Option(help="Explore trials in all, over those of now.")] = None,
    hours: Annotated[float | None, typer.Option(help="Hours of work in all.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="GPU-hours in all.")] = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a finished search, with a larger budget."""
    from service.client import Client

    if trials is None and hours is None and gpu_hours is None:
        raise refuse("Say how far: --trials, --hours or --gpu-hours.")
    with Client(on_wait=tell_waiting) as client:
        search_id = client.find(id)["id"]
        _queued(client, client.extend(search_id, trials=trials, hours=hours, gpu_hours=gpu_hours), watch, as_json)


def retry(id: SearchId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Try the failed trials of a finished search again."""
    from service.client import Client

    with Client(on_wait=tell_waiting) as client:
        _queued(client, client.retry(client.find(id)["id"]), watch, as_json)


def _queued(client: Client, search: dict[str, Any], watch: bool, as_json: bool) -> None:
    """Says that a search is in the queue, or follows it to its end."""
    if watch:
        from service.cli.watching import follow

        raise typer.Exit(follow(client, search, as_json=as_json, only_new=True))
    if as_json:
        typer.echo(json.dumps(search))
        return
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"Queued [bold]{search['id']}[/bold]")
    if search.get("waiting_reason"):
        console.print(f"It waits: {search['waiting_reason']}", markup=False)
    console.print(
        f"Follow it: attune watch {search['id']}\n           {client.url}/searches/{search['id']}", style="bright_black"
    )


def cancel(id: SearchId, as_json: AsJson = False) -> None:
    """Stop a search for good; what is finished is kept."""
    _command("cancel", id, as_json)


def pause(id: SearchId, as_json: AsJson = False) -> None:
    """Let a search rest until it is resumed."""
    _command("pause", id, as_json)


def resume(id: SearchId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Go on with a paused search."""
    if not watch:
        _command("resume", id, as_json)
        return
    from service.cli.watching import follow
    from service.client import Client

    with Client() as client:
        raise typer.Exit(follow(client, client.resume(client.find(id)["id"]), as_json=as_json, only_new=True))


def delete(
    id: SearchId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a finished search with its trials."""
    from service.client import Client

    with Client() as client:
        search = client.find(id)
        if not yes:
            if not sys.stdin.isatty():
                raise refuse("Deleting asks first; say --yes to delete without a terminal.")
            typer.confirm(f"Delete {search['name']!r} ({search['id']}) with all its trials?", abort=True)
        client.delete(search["id"])
    typer.echo(json.dumps({"id": search["id"], "deleted": True}) if as_json else f"Deleted {search['id']}.")


def _command(command: str, prefix: str, as_json: bool) -> None:
    from service.client import Client

    with Client() as client:
        search = client.find(prefix)
        changed = getattr(client, command)(search["id"])
    done = {"cancel": "Cancelling", "pause": "Pausing", "resume": "Resuming"}[command]
    past = {"cancelled": "Cancelled", "paused": "Paused"}.get(changed["status"], done)
    typer.echo(json.dumps(changed) if as_json else f"{past} {changed['id']}.")


def read_request(file: str) -> dict[str, Any]:
    """The request in a file, or on the standard input for "-"."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise refuse(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise refuse(f"{file} is not UTF-8 text.") from None
    from service import yaml_text  # only here: loading yaml takes a while

    try:
        found = parse_json(text) if Path(file).suffix == ".json" else yaml_text.load(text, aliases=True)
    except ValueError as error:
        raise refuse(f"{file} is not a valid request file:", [str(error)]) from None
    if not isinstance(found, dict):
        raise refuse(f"{file} does not hold a request: it needs at least `name` and `dataset`.")
    return found


def parse_json(text: str) -> Any:
    """JSON; ValueError for a key that is written twice."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"The key {twice!r} is written twice.")
    return found
