"""Commands that start something on this machine: serve, api, dispatch, demo."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str, typer.Option(help="Address to listen on; any but the loopback needs ATTUNE_TOKEN.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the API and the dashboard.")]
Home = Annotated[Path | None, typer.Option(help="Database, artifacts and logs; default: ATTUNE_HOME, else ~/.attune.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PANEL = "Run attune"


def register(app: typer.Typer) -> None:
    for function in (demo, serve, api, dispatch):
        app.command(function.__name__, rich_help_panel=PANEL)(function)


def serve(host: Host = "127.0.0.1", port: Port = 8000, home: Home = None, as_json: AsJson = False) -> None:
    """Run everything on this machine: API, dashboard, dispatcher, local Ray, SQLite."""
    from service.cli.house import House, find_home, wait_until_ready
    from service.cli.signals import stop_on_signals

    house = House(host, port, find_home(home))
    house.check()
    stopping = stop_on_signals()
    supervisor = house.supervisor(lambda text: typer.echo(f"attune: {text}", err=True))
    supervisor.start()
    try:
        if not wait_until_ready(house, supervisor, stopping):
            return
        if as_json:
            typer.echo(json.dumps({"url": house.url, "link": house.link(), "home": str(house.home)}))
        else:
            typer.echo(f"attune is at {house.link()}\nhome {house.home} · stop with Ctrl-C")
        stopping.wait()
        typer.echo("Stopping …", err=True)
    finally:
        supervisor.stop()


def api(host: Host = "127.0.0.1", port: Port = 8000, home: Home = None) -> None:
    """Run the API and the dashboard alone, for a cluster."""
    from service.cli.house import House, find_home

    house = House(host, port, find_home(home))
    house.check()
    module, arguments = house.api()
    _become(module, arguments, house.environment())


def dispatch(home: Home = None) -> None:
    """Run a dispatcher alone, for a cluster (ATTUNE_DATABASE_URL, ATTUNE_RAY_ADDRESS)."""
    from service.cli.house import find_home

    _become("workers.dispatcher", [], os.environ | {"ATTUNE_HOME": str(find_home(home))})


def _become(module: str, arguments: list[str], environment: dict[str, str]) -> None:
    """This process becomes `python -m module`, so that a process manager's signals reach it."""
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


def demo(
    home: Home = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: 8000, or another one if that is taken.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Another request than the demo's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start attune and watch a first search: where do SE and CBAM go in a small ResNet on cluttered digits?"""
    from service.cli.demo import run_demo

    raise typer.Exit(run_demo(home, port, file, as_json))
