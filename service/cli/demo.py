"""`attune demo`: the service, one small real search watched to its end, and the front it found."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import typer

from service import formats
from service.cli.failures import SEARCH_FAILED
from service.cli.house import House, find_home, free_port, wait_until_ready
from service.cli.requests import read_request
from service.cli.signals import stop_on_signals
from service.cli.watching import INTERRUPTED, follow
from service.client import Client
from service.examples import find

HOST = "127.0.0.1"
USUAL_PORT = 8000


def run_demo(home: Path | None, port: int | None, file: Path | None, as_json: bool) -> int:
    """Exit code 0 when the search succeeded. In a terminal the service stays until Ctrl-C."""
    request = read_request(str(file or find("demo")))
    house = House(HOST, port or free_port(HOST, USUAL_PORT), find_home(home))
    house.check()
    stopping = stop_on_signals()
    supervisor = house.supervisor(lambda text: typer.echo(f"attune: {text}", err=True))
    if not as_json:
        typer.echo(f"Starting attune (home {house.home}) …")
    supervisor.start()
    try:
        if not wait_until_ready(house, supervisor, stopping):
            return INTERRUPTED
        return _run(house, request, as_json, stopping)
    finally:
        if not as_json:
            typer.echo("Stopping …", err=True)
        supervisor.stop()


def _run(house: House, request: dict[str, Any], as_json: bool, stopping: threading.Event) -> int:
    with Client(house.url) as client:
        search = _unfinished(client, request)
        again = search is not None
        search = search or client.submit(request)
        page = house.link(f"/searches/{search['id']}")
        if not as_json:
            head = "Going on with the demo that was interrupted." if again else _question(request)
            typer.echo(f"{head}\nWatch it in a browser as well: {page}\n")
        code = follow(client, search, as_json=as_json, stopping=stopping)
        if code == INTERRUPTED:
            # else the next `attune serve` on this home would go on with it
            client.cancel(search["id"])
            return code
        if not as_json:
            _tell_reuse(client.search(search["id"]), page)
        if code == 0 and sys.stdout.isatty() and sys.stdin.isatty() and not as_json:
            typer.echo("The dashboard stays until you press Ctrl-C.")
            stopping.wait()
        return SEARCH_FAILED if code else 0


def _unfinished(client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
    """The same demo, left unfinished when its service was killed: it goes on by itself, so a second one would only
    take half of its processors."""
    for search in client.searches(status="queued,running,paused", name=request["name"]):
        if search["name"] == request["name"] and search["tags"] == request.get("tags", []):
            return client.resume(search["id"]) if search["status"] == "paused" else search
    return None


def _question(request: dict[str, Any]) -> str:
    backbone = request.get("backbone", {}).get("name", "the default backbone")
    trials = request.get("budget", {}).get("trials")
    many = f"{trials} placements" if trials else "placements"
    where = f"{backbone} on {request['dataset']['name']}"
    return f"Training {many} of attention in {where}, after the baseline and the published ones."


def _tell_reuse(search: dict[str, Any], page: str) -> None:
    counts = search["counts"]
    finished = counts["reused"] + counts["succeeded"]
    if counts["reused"]:
        share = f"{counts['reused']} of {formats.plural(finished, 'result')}"
        reused = f"{share} reused from earlier searches, {counts['succeeded']} trained now."
    else:
        reused = f"All {formats.plural(finished, 'result')} trained now; another demo will reuse them."
    typer.echo(f"\n{reused}\nDashboard: {page}")
