"""attune schedule …: searches that repeat themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.failures import refuse, tell_waiting

Which = Annotated[str, typer.Argument(metavar="SCHEDULE", help="The schedule's name, its id, or its first characters.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Hook = Annotated[list[str] | None, typer.Option("--webhook", help="A web hook to tell; repeat it for several.")]
Mail = Annotated[list[str] | None, typer.Option("--email", help="An address to tell; repeat it for several.")]
Tell = Annotated[
    list[str] | None, typer.Option("--tell", help="Of what: finished, failed, improved. Default: the first two.")
]
SecretFile = Annotated[
    Path | None, typer.Option("--secret-file", help="File with the text that web hooks are signed with.")
]
schedule = typer.Typer(no_args_is_help=True, help="Repeat a search by the clock.")


def register(app: typer.Typer) -> None:
    app.add_typer(schedule, name="schedule", rich_help_panel="Searches")
    schedule.command("list")(list_schedules)
    schedule.command("test")(send_test)
    for function in (add, show, edit, pause, resume, run, rm, fires):
        schedule.command(function.__name__)(function)


def add(
    file: Annotated[str, typer.Argument(help="The search in YAML or JSON; - reads it from the standard input.")],
    cron: Annotated[str, typer.Option(help="When, in five fields: minute hour day month weekday.")],
    zone: Annotated[str, typer.Option(help="IANA name of the time zone that it is meant in.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Default: the search's name.")] = None,
    overlap: Annotated[
        str, typer.Option(help="When the search before has not ended: skip, queue, allow or replace.")
    ] = "skip",
    catch_up: Annotated[int, typer.Option(help="Seconds by which a missed one may be late and still run.")] = 3600,
    jitter: Annotated[int, typer.Option(help="Start up to so many seconds later.")] = 0,
    start: Annotated[str | None, typer.Option(help="Not before: 2026-03-01T02:00:00+01:00.")] = None,
    end: Annotated[str | None, typer.Option(help="Not after.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9, of the searches. Default: the search's.")] = None,
    keep: Annotated[int | None, typer.Option(help="Ended searches to keep; older ones are deleted.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not begin yet.")] = False,
    webhook: Hook = None,
    email: Mail = None,
    tell: Tell = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Repeat a search: attune schedule add search.yaml --cron "0 2 * * SUN" --zone Europe/Berlin"""
    from service.cli.requests import read_request
    from service.client import Client

    template = read_request(file)
    called = template.get("name")
    body: dict[str, Any] = {
        "name": name or (called.replace("{{ fire_at }}", "").strip() if isinstance(called, str) else ""),
        "cron": cron, "zone": zone, "template": template, "overlap": overlap, "catch_up_seconds": catch_up,
        "jitter_seconds": jitter, "start_at": start, "end_at": end, "keep": keep, "enabled": not paused,
        "notify": _targets(webhook, email, tell, secret_file) or [],
    }  # fmt: skip
    wanted = priority if priority is not None else template.get("priority")
    with Client(on_wait=tell_waiting) as client:
        made = client.add_schedule(body | ({} if wanted is None else {"priority": wanted}))
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(f"Made {made['id']}: {made['meaning']}, {made['zone']}.")
    typer.echo(f"Next: {_local(made['next_fire_at'], made['zone'])}")


def list_schedules(as_json: AsJson = False) -> None:
    """List schedules with their next fires."""
    from service.client import Client

    with Client() as client:
        found = list(client.schedules())
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found:
        typer.echo('No schedules. Make one: attune schedule add search.yaml --cron "0 2 * * SUN"', err=True)
        return
    from rich.console import Console
    from rich.text import Text

    from service.cli.queries import table

    rows = table("id", "name", "when", "zone", "next", "overlap")
    for each in found:
        following = _local(each["next_fire_at"], each["zone"]) if each["enabled"] else "paused"
        rows.add_row(each["id"][:13], Text(each["name"]), each["cron"], each["zone"], following, each["overlap"])
    Console().print(rows)


def show(which: Which, as_json: AsJson = False) -> None:
    """Show one schedule with its next five fires, on its zone's clock and on this machine's."""
    from service.client import Client

    with Client() as client:
        found = client.schedule(client.find_schedule(which)["id"])
    coming = [fire | {"yours": _on_our_clock(fire["at"])} for fire in found["coming"]]
    if as_json:
        typer.echo(json.dumps(found | {"coming": coming}))
        return
    typer.echo(f"{found['name']}  {found['id']}")
    typer.echo(f"{found['cron']}  {found['zone']}: {found['meaning']}")
    typer.echo(f"overlap {found['overlap']}, catches up {found['catch_up_seconds']} s, priority {found['priority']}")
    for target in found["notify"]:
        typer.echo(f"tells {target['target']} when {', '.join(target['events'])}")
    if found["waiting"]:
        queue = "the search before to end, or for " if found["overlap"] == "queue" else ""
        typer.echo(f"A fire waits for {queue}its data set.")
    if not coming:
        typer.echo("Paused, or over.")
        return
    typer.echo("Next:")
    for fire in coming:
        ours = "" if fire["yours"] == fire["local"] else f"  for you {fire['yours']}"
        typer.echo(f"  {fire['local']}{ours}")


def edit(
    which: Which,
    file: Annotated[str | None, typer.Option("--search", help="A file with another search.")] = None,
    cron: Annotated[str | None, typer.Option()] = None,
    zone: Annotated[str | None, typer.Option()] = None,
    name: Annotated[str | None, typer.Option()] = None,
    overlap: Annotated[str | None, typer.Option()] = None,
    catch_up: Annotated[int | None, typer.Option()] = None,
    jitter: Annotated[int | None, typer.Option()] = None,
    start: Annotated[str | None, typer.Option(help="none takes it away.")] = None,
    end: Annotated[str | None, typer.Option(help="none takes it away.")] = None,
    priority: Annotated[int | None, typer.Option()] = None,
    keep: Annotated[str | None, typer.Option(help="A number, or none for all.")] = None,
    webhook: Hook = None,
    email: Mail = None,
    no_webhook: Annotated[list[str] | None, typer.Option(help="A web hook not to tell any more.")] = None,
    no_email: Annotated[list[str] | None, typer.Option(help="An address not to tell any more.")] = None,
    tell: Tell = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Change a schedule; --webhook and --email add to those of now. --tell alone holds for all of them."""
    from service.cli.requests import read_request
    from service.client import Client

    given = {
        "template": None if file is None else read_request(file), "cron": cron, "zone": zone, "name": name,
        "overlap": overlap, "catch_up_seconds": catch_up, "jitter_seconds": jitter, "priority": priority,
    }  # fmt: skip
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    for field, text in (("start_at", start), ("end_at", end)):
        changes |= {} if text is None else {field: None if text == "none" else text}
    if keep is not None:
        if not (keep == "none" or keep.isdigit()):
            raise refuse("--keep: a number, or none.")
        changes["keep"] = None if keep == "none" else int(keep)
    gone = {("webhook", each) for each in no_webhook or ()} | {("email", each) for each in no_email or ()}
    if webhook or email or gone or tell or secret_file:
        with Client() as client:
            known = client.find_schedule(which)["notify"]
        changes["notify"] = _merged(known, _targets(webhook, email, tell, secret_file, alone=True) or [], gone, tell)
    if not changes:
        raise refuse("Say what to change: --cron, --zone, --search, --overlap, … (attune schedule edit --help).")
    _change(which, changes, as_json, "Changed")


def pause(which: Which, as_json: AsJson = False) -> None:
    """Let a schedule rest; what it has started goes on."""
    _change(which, {"enabled": False}, as_json, "Paused")


def resume(which: Which, as_json: AsJson = False) -> None:
    """Let a paused schedule go on with its next time."""
    _change(which, {"enabled": True}, as_json, "Resumed")


def run(which: Which, as_json: AsJson = False) -> None:
    """Start a search of the schedule now, beside its timetable."""
    from service.client import Client

    with Client(on_wait=tell_waiting) as client:
        fire = client.run_schedule(client.find_schedule(which)["id"])
    typer.echo(
        json.dumps(fire) if as_json else f"Queued {fire['search_id']}\nFollow it: attune watch {fire['search_id']}"
    )


def rm(
    which: Which,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a schedule with its history; its searches stay."""
    from service.client import Client

    with Client() as client:
        found = client.find_schedule(which)
        if not yes:
            typer.confirm(f"Delete the schedule {found['name']!r} with its history?", abort=True, err=True)
        client.delete_schedule(found["id"])
    typer.echo(json.dumps({"deleted": found["id"]}) if as_json else f"Deleted {found['name']}.")


def fires(
    which: Which,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What has become of a schedule's times, newest first."""
    from itertools import islice

    from service.client import Client

    with Client() as client:
        found_schedule = client.find_schedule(which)
        found = list(islice(client.fires(found_schedule["id"], limit=min(limit, 200)), limit))
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.text import Text

    from service import formats
    from service.cli.queries import table

    rows = table("time", "what", "search", "hypervolume", "front", "why")
    for fire in found:
        volume = formats.MISSING if fire["hypervolume"] is None else f"{fire['hypervolume']:.4f}"
        status = fire["search_status"] or fire["status"]
        rows.add_row(
            _local(fire["fire_at"], found_schedule["zone"]), status, (fire["search_id"] or formats.MISSING)[:13],
            volume, fire["verdict"] or formats.MISSING, Text(fire["reason"] or ""),
        )  # fmt: skip
    Console().print(rows)


def send_test(which: Which, as_json: AsJson = False) -> None:
    """Send a test message to everybody whom the schedule tells."""
    from service.client import Client

    with Client() as client:
        queued = client.test_messages(client.find_schedule(which)["id"])
    typer.echo(json.dumps(queued) if as_json else f"Queued {len(queued)}; the dispatcher sends them within seconds.")


def _change(which: str, changes: dict[str, Any], as_json: bool, done: str) -> None:
    from service.client import Client

    with Client() as client:
        found = client.find_schedule(which)
        changed = client.edit_schedule(found["id"], changes, version=found["version"])
    following = f" Next: {_local(changed['next_fire_at'], changed['zone'])}" if changed["next_fire_at"] else ""
    typer.echo(json.dumps(changed) if as_json else f"{done} {changed['name']}.{following}")


def _merged(
    known: list[dict[str, Any]], given: list[dict[str, Any]], gone: set[tuple[str, str]], tell: list[str] | None
) -> list[dict[str, Any]]:
    """Who is told after a change: those of now, with what is given of them, and new ones; a secret that is not named
    stays as it is. tell: of what all are told where nobody is named."""
    found = {
        (each["channel"], each["target"]): {name: each[name] for name in ("channel", "target", "events")}
        for each in known
    }
    for channel, target in sorted(gone):
        if found.pop((channel, target), None) is None:
            raise refuse(f"--no-{channel} {target}: the schedule does not tell it.")
    for each in given:
        key = (each["channel"], each["target"])
        found[key] = found.get(key, {}) | each
    if tell and not given:
        found = {key: each | {"events": tell} for key, each in found.items()}
        if not found:
            raise refuse("--tell: the schedule tells nobody; add --webhook or --email.")
    return list(found.values())


def _targets(
    webhook: list[str] | None, email: list[str] | None, tell: list[str] | None, secret_file: Path | None, *,
    alone: bool = False,
) -> list[dict[str, Any]] | None:  # fmt: skip
    """What the options say of who is told; None when they say nothing. alone: --tell needs nobody named."""
    if secret_file and not webhook:
        raise refuse("--secret-file goes with --webhook.")
    if not webhook and not email:
        if tell and not alone:
            raise refuse("--tell goes with --webhook or --email.")
        return None
    events = {"events": tell} if tell else {}
    found: list[dict[str, Any]] = [{"channel": "email", "target": each, **events} for each in email or []]
    secret: dict[str, str] = {}
    if webhook and secret_file is not None:
        try:
            secret = {"secret": secret_file.read_text().strip()}
        except (OSError, UnicodeDecodeError) as error:
            raise refuse(f"--secret-file: {secret_file} cannot be read ({type(error).__name__}).") from None
    return found + [{"channel": "webhook", "target": each, **events, **secret} for each in webhook or []]


def _on_our_clock(moment: str) -> str:
    from datetime import datetime

    return f"{datetime.fromisoformat(moment).astimezone():%a %Y-%m-%d %H:%M %Z}"


def _local(moment: str | None, zone: str) -> str:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    if moment is None:
        return "never"
    return f"{datetime.fromisoformat(moment).astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M %Z}"
