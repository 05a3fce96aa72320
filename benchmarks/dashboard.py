"""How large and how slow a search of very many trials is in the dashboard, and beside Optuna Dashboard.

    folder=$(mktemp -d); python -m venv $folder && $folder/bin/pip install optuna-dashboard
    python -m benchmarks.dashboard [--trials 2000,100000] --optuna $folder/bin/python

Fills an empty SQLite file with one finished search, starts the service as a process of its own and asks it over HTTP:
bytes of each answer, the time of the first request after the start, the median and slowest of the others, and the
processor time that the server took for one of these, which does not depend on what else the machine does. Then
Chromium opens the search's page, in the new process and again. The same trials are then served by Optuna Dashboard,
out of memory. Without --optuna nothing is compared, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from playwright.sync_api import Browser, TimeoutError, sync_playwright
from sqlalchemy import Engine, select

from db.engine import make_engine, reading
from db.models import Architecture, Trial
from db.upgrades import upgrade
from tests.service.many import fill_many

REPEATS = 20
PATHS = (
    "/api/v1/searches/{id}/front",
    "/api/v1/searches/{id}/front?architectures=false&x=macs&y=top1",
    "/api/v1/searches/{id}/effects",
    "/live/searches/{id}/paths",
    "/live/searches/{id}/trials?sort=-top1",
    "/searches/{id}",
)
OPTUNA_PATH = "/api/studies/{id}?after=0"
CHROMIUM = "/usr/bin/chromium"
DRAWN = """[...document.querySelectorAll('.js-plotly-plot')].some(
    plot => (plot.data ?? []).some(trace => (trace.x ?? []).length > 2) && plot.querySelector('.trace, canvas'))"""
PATIENCE = 240.0
"""Seconds to wait for a page."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="2000,100000", help="comma-separated")
    parser.add_argument("--optuna", default="", help="an interpreter that has optuna-dashboard")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        for count in map(int, arguments.trials.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                compare(Path(folder), count, arguments.optuna, browser)
        browser.close()


def compare(folder: Path, count: int, optuna: str, browser: Browser) -> None:
    """Prints the table of one number of trials."""
    url = f"sqlite:///{folder / 'many.db'}"
    engine = make_engine(url)
    upgrade(engine)
    search = fill_many(engine, count)
    print(f"\n{count:,} trials, load average {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{'answer':<62}{'bytes':>12}{'first ms':>10}{'median ms':>11}{'slowest ms':>12}{'cpu ms':>9}")
    command = [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--log-level", "error", "--port"]
    with process(command, folder, ATTUNE_DATABASE_URL=url) as (address, server):
        ask(address, server, [path.format(id=search) for path in PATHS])
        page(browser, "attune, page", f"{address}/searches/{search}")
    if not optuna:
        print("NOT COMPARED with Optuna Dashboard: name an interpreter that has it with --optuna (see --help).")
        return
    rows = folder / "trials.jsonl"
    write_trials(engine, search, rows)
    with process([optuna, str(Path(__file__).with_name("optuna_study.py")), str(rows)], folder) as (address, server):
        study = httpx.get(f"{address}/api/studies").json()["study_summaries"][0]["study_id"]
        ask(address, server, [OPTUNA_PATH.format(id=study)], repeats=5 if count > 10_000 else REPEATS)
        page(browser, "Optuna Dashboard, page", f"{address}/dashboard/studies/{study}")
    engine.dispose()


@contextmanager
def process(command: Sequence[str], folder: Path, **settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server that `command` starts with a port as its last argument, and its address, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("wb")
    found = subprocess.Popen([*command, str(port)], env=os.environ | settings, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while not answers(address):
            if found.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        yield address, psutil.Process(found.pid)
    finally:
        found.terminate()
        found.wait(30)
        log.close()


def answers(address: str) -> bool:
    try:
        httpx.get(f"{address}/static/icon.svg", timeout=5)
    except httpx.TransportError:
        return False
    return True


def ask(address: str, server: psutil.Process, paths: Sequence[str], repeats: int = REPEATS) -> None:
    """A row for each answer."""
    with httpx.Client(base_url=address, headers={"Accept-Encoding": "identity"}, timeout=PATIENCE) as client:
        for path in paths:
            times, busy = [], 0.0
            for place in range(repeats + 1):
                if place == 1:
                    busy = processor_ms(server)
                began = time.perf_counter()
                answer = client.get(path)
                times.append(1000 * (time.perf_counter() - began))
                answer.raise_for_status()
            busy = (processor_ms(server) - busy) / repeats
            first, *later = times
            shown = path if len(path) < 60 else path.replace(path.split("/")[-2], "…")
            row = f"{shown:<62}{len(answer.content):>12,}{first:>10.0f}"
            print(f"{row}{statistics.median(later):>11.1f}{max(later):>12.1f}{busy:>9.1f}", flush=True)


def processor_ms(server: psutil.Process) -> float:
    times = server.cpu_times()
    return 1000 * float(times.user + times.system)


def page(browser: Browser, name: str, address: str) -> None:
    """From the address to the first plot that holds points: with an empty cache, and again in the same browser."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True)  # to look at its plots
    found = []
    for _ in range(4):
        tab = context.new_page()
        began = time.perf_counter()
        try:
            tab.goto(address, timeout=1000 * PATIENCE, wait_until="commit")
            tab.wait_for_function(DRAWN, timeout=1000 * PATIENCE)
            found.append(1000 * (time.perf_counter() - began))
        except TimeoutError:
            found.append(float("inf"))
        tab.close()
        if found[-1] == float("inf"):
            break
    context.close()
    first, *later = found
    rest = f"{statistics.median(later):>11.1f}{max(later):>12.1f}" if later else ""
    print(f"{name + ' until its plot stands':<62}{'':>12}{first:>10.0f}{rest}", flush=True)


def write_trials(engine: Engine, search: str, path: Path) -> None:
    """The search's finished trials as Optuna is told them: what each stage holds, accuracy and multiply-adds."""
    statement = (
        select(Trial.top1, Trial.macs, Architecture.document)
        .join(Architecture, Architecture.key == Trial.architecture_key)
        .where(Trial.search_id == search, Trial.status == "succeeded")
    )
    with reading(engine) as session, path.open("w") as file:
        for top1, macs, document in session.execute(statement):
            params = {}
            for stage in range(1, 4):
                mine = {s: found for s, found in document["placements"].items() if s.startswith(f"{stage}.")}
                modules = next(iter(mine.values()), [])
                params[f"modules {stage}"] = "+".join(module["kind"] for module in modules) or "none"
                params[f"reduction {stage}"] = str(modules[0].get("reduction", "")) if modules else "none"
                params[f"blocks {stage}"] = ",".join(site.split(".")[1] for site in mine) or "none"
            file.write(json.dumps({"values": [top1, macs], "params": params}) + "\n")


if __name__ == "__main__":
    main()
