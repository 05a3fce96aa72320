"""attune data: which data sets there are on this machine, whether one is sound, and a folder's name.

Only workers read data sets, so these commands start `python -m workers.data` and show what it says.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import queries
from service.cli.queries import AsJson

if TYPE_CHECKING:
    from rich.console import Console

PANEL = "Searches"
SPLITS = ("train", "validation", "test")
CLASSES_SHOWN = 20

Name = Annotated[str, typer.Argument(help="The data set's name, as requests use it.")]


def register(app: typer.Typer) -> None:
    data = typer.Typer(help="Data sets: on this machine, and those a service offers.", no_args_is_help=True)
    data.command("list")(list_here)
    data.command("check")(check)
    data.command("add")(add)
    data.command("published")(list_published)
    app.add_typer(data, name="data", rich_help_panel=PANEL)


def list_here(as_json: AsJson = False) -> None:
    """List the data sets on this machine: those below ATTUNE_DATA, registered ones, and those that come along."""
    found = _ask("list")
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    table = queries.table("name", "images", "classes", *SPLITS, "size", "fingerprint", "where")
    for column in table.columns[:-1]:
        column.no_wrap = True
    table.columns[-1].overflow = "fold"
    for one in found:
        entry = one["entry"]
        if entry is not None:
            sizes = [f"{entry[f'{split}_size']:,}" for split in SPLITS]
            where = one["where"] or "comes with attune"
            row = ["×".join(map(str, entry["input_shape"])), str(entry["classes"]), *sizes, _size(one["bytes"])]
            table.add_row(*map(Text, [one["name"], *row, entry["fingerprint"][:12], where]))
    console.print(table)
    for one in found:
        if one["entry"] is None:
            console.print(Text(f"\n{one['name']}", style="bold"), Text(f"({one['status']})  {one['reason']}"))


def check(name: Name, as_json: AsJson = False) -> None:
    """Read every file of a data set: unreadable images, counts, missing files. Exit code 1 if something is wrong."""
    _show(_ask("check", name), as_json)


def add(
    name: Name,
    path: Annotated[Path, typer.Argument(help="Its folder, anywhere on this machine.")],
    replace: Annotated[bool, typer.Option("--replace", help="The name is to mean this folder from now on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register a folder outside of ATTUNE_DATA under a name, and check it."""
    absolute = str(path.expanduser().absolute())
    _show(_ask("add", *(["--replace"] if replace else []), "--", name, absolute), as_json)


def list_published(as_json: AsJson = False) -> None:
    """List the data sets that searches of the service can name, with their options."""
    from service.client import Client

    with Client() as client:
        found = client.catalog("datasets")
    if as_json:
        typer.echo(json.dumps(found["items"]))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    table = queries.table("name", "title", "images", "classes", *SPLITS, "options")
    for item in found["items"]:
        shape = "×".join(map(str, item["input_shape"]))
        options = ", ".join(f"{option['name']}={option['default']}" for option in item["options"])
        sizes = [str(item[f"{split}_size"]) for split in SPLITS]
        table.add_row(*map(Text, [item["name"], item["title"], shape, str(item["classes"]), *sizes, options]))
    console.print(table)
    for one in found["unavailable"]:
        console.print(Text(f"\n{one['name']}", style="bold"), Text(f"(not available)  {one['reason']}"))


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
    else:
        from rich.console import Console

        _print_report(Console(highlight=False), report)
    if report["problems"]:
        raise typer.Exit(1)


def _print_report(console: Console, report: Mapping[str, Any]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    found, entry = report["found"], report["found"]["entry"]
    console.print(Text(found["title"], style="bold"), Text(found["where"] or ""))
    facts: dict[str, Any] = {"files": f"{report['files']:,}, {_size(found['bytes'])}" if found["bytes"] else None}
    if entry:
        facts |= {split: f"{entry[f'{split}_size']:,} images" for split in SPLITS}
        facts |= {"classes": entry["classes"], "fingerprint": entry["fingerprint"]}
    if report["count_ignored"]:
        facts["no images"] = f"{report['count_ignored']:,} files, such as {report['ignored'][0]}"
    table = queries.table("", "")
    table.show_header = False
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, style="bright_black"), Text(str(value)))
    console.print(table)
    if report["classes"]:
        classes = queries.table("class", *SPLITS)
        for one in report["classes"][:CLASSES_SHOWN]:
            classes.add_row(Text(one["name"]), *(f"{one[split]:,}" for split in SPLITS))
        console.print(Padding(classes, (1, 0, 0, 0)))
        if len(report["classes"]) > CLASSES_SHOWN:
            console.print(Text(f"and {len(report['classes']) - CLASSES_SHOWN} more (--json lists them)"))
    for title, lines, style in (
        ("Cannot be read", [f"{one['file']}: {one['reason']}" for one in report["unreadable"]], "red"),
        ("Odd", report["warnings"], "yellow"),
        ("Wrong", report["problems"], "red"),
    ):
        if lines:
            console.print(Text(f"\n{title}", style=f"bold {style}"))
        for line in lines:
            console.print(Text(f"  • {line}"))
    if not report["problems"]:
        console.print(Text("\n✓ Every file is sound.", style="green"))


def _ask(*arguments: str) -> Any:
    """What the workers' command answers; refused input ends this command with its message."""
    from service.cli.failures import BAD_INPUT, tell
    from service.cli.house import find_home
    from service.problems import AttuneError

    environment = os.environ | {"ATTUNE_HOME": str(find_home(None)), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "workers.data", *arguments]
    answer: dict[str, Any] = {}
    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process,
        _progress() as progress,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            if "progress" in answer:
                progress(answer["progress"])
    if "result" in answer:
        return answer["result"]
    if "error" in answer:
        tell(answer["error"])
        raise typer.Exit(BAD_INPUT)
    raise AttuneError(f"`{' '.join(command[1:4])}` has ended with code {process.returncode}.", status=500)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Shows how far reading is, where somebody looks."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def show(told: Mapping[str, Any]) -> None:
            doing = told["doing"]
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing)
            bar.update(tasks[doing], completed=told["done"], total=told["total"])

        yield show


def _size(count: int | None) -> str:
    """Bytes in a unit that suits."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"
