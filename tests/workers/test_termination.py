"""SIGTERM at any moment of a driver's life, sent to real processes: the search goes back and nobody has died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from db import searches
from db.engine import writing
from tests.workers.conftest import Lab
from workers.storage.agreement import agree
from workers.termination import EXIT_TERMINATED, held_for_children

SMALL = {"space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]}}
READY = """
import sys
from workers.termination import EXIT_TERMINATED, Termination
termination = Termination()
termination.hold()
print("starting", flush=True)
sys.stdin.readline()
termination.listen()
print("listening", flush=True)
line = termination.line()
raise SystemExit(EXIT_TERMINATED if line is None and termination.asked else 0)
"""


def _child(code: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    with held_for_children():
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )


def _ended(process: subprocess.Popen[str]) -> int:
    try:
        return process.wait(timeout=60)
    finally:
        process.kill()
        process.communicate()


def test_a_signal_before_the_first_line_of_code_is_kept() -> None:
    process = _child(READY)
    process.send_signal(signal.SIGTERM)  # the interpreter is still starting
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert _ended(process) == EXIT_TERMINATED


def test_a_signal_while_waiting_for_a_search_ends_the_wait() -> None:
    process = _child(READY)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in range(2)] == ["starting\n", "listening\n"]
    process.send_signal(signal.SIGTERM)
    assert _ended(process) == EXIT_TERMINATED


def test_the_signals_of_whoever_starts_a_child_are_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    with held_for_children():
        pass
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before


DRIVER = """
import json, sys
from workers import driver
from workers.logs import configure_logs
from workers.settings import WorkerSettings
from workers.termination import Termination
import tests.workers.slow_start  # getting ready takes a while, as with a large space
termination = Termination()
termination.hold()
configure_logs()
termination.listen()
order = json.loads(sys.stdin.readline())
print("working", flush=True)
raise SystemExit(driver.main(order["search"], order["attempt"], WorkerSettings(lease_seconds=4.0), termination))
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["SIGTERM", "cancel", "pause"])
def test_a_driver_that_is_getting_ready_obeys_at_once(lab: Lab, command: str, tmp_path: Path) -> None:
    agree(lab.engine, str(tmp_path), "tests:1")
    search_id = lab.submit(**SMALL)
    search = lab.claim()
    url = lab.engine.url.render_as_string(hide_password=False)
    root = str(Path(__file__).parents[2])
    known = {"ATTUNE_DATABASE_URL": url, "ATTUNE_STORAGE": str(tmp_path), "PYTHONPATH": root}
    process = _child(DRIVER, os.environ | known)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"search": search_id, "attempt": search.attempt}) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "working\n"
    time.sleep(3.0)  # in the middle of it
    began = time.monotonic()
    if command == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:
        with writing(lab.engine) as session:
            searches.set_command(session, search_id, command)
    assert _ended(process) == 0
    assert time.monotonic() - began < 30  # getting ready would have taken a minute
    ended = lab.search(search_id)
    assert ended.status == {"SIGTERM": "queued", "cancel": "cancelled", "pause": "paused"}[command]
    assert (ended.deaths, ended.lease_owner, ended.command) == (0, None, None)
    assert ended.active_seconds < 30
