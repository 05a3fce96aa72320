"""A hung epoch ends its process in time, and what it hung in is left in the store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workers.unruly import order_of
from workers.storage.hangs import take_hang
from workers.storage.identity import write_marker
from workers.storage.store import open_store
from workers.watchdog import EXIT_HUNG

RUN = """
import json, sys
import tests.workers.unruly
from workers import watchdog
from workers.watched_trial import WatchedTrial

watchdog.GRACE_SECONDS = 1.0
order, dog = json.loads(sys.argv[1]), watchdog.Watchdog()
for _ in range(2):
    with dog.watching(order["epoch_timeout"]):
        trial = WatchedTrial(order, "here", dog)
        trial.step()
        trial.close()
print("still here")
"""

LET_GO = """
import time
from workers import watchdog

watchdog.GRACE_SECONDS = 0.2
dog = watchdog.Watchdog()
for _ in range(3):
    with dog.watching(0.5):
        pass
time.sleep(1.0)  # both of its ways to end this process would have come
print("still here")
"""


def run(what: str, url: str, timeout: float) -> subprocess.CompletedProcess[str]:
    order = json.dumps(order_of(what, url, timeout=timeout))
    return subprocess.run([sys.executable, "-c", RUN, order], check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("protocol", ["", "dir::file://"])
def test_a_hung_epoch_ends_its_process_and_tells_where_it_was(tmp_path: Path, protocol: str) -> None:
    url = f"{protocol}{tmp_path}"
    store = open_store(url)
    write_marker(store, "unruly")
    started = time.monotonic()
    ended = run("hang", url, 8.0)
    assert ended.returncode == EXIT_HUNG, ended.stderr
    assert time.monotonic() - started < 60
    traces = take_hang(store, "searches/one/hang")
    assert traces is not None
    assert 'unruly.py", line' in traces
    assert "in run_epoch" in traces
    assert take_hang(store, "searches/one/hang") is None


@pytest.mark.slow
def test_one_that_holds_the_interpreters_lock_is_ended_too(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_marker(store, "unruly")
    ended = run("hang_with_lock", str(tmp_path), 8.0)
    assert ended.returncode == 1  # faulthandler's own
    traces = take_hang(store, "searches/one/hang_with_lock")
    assert traces is not None
    assert "in run_epoch" in traces


def test_work_that_ends_in_time_is_left_alone_and_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_marker(store, "unruly")
    ended = run("fine", str(tmp_path), 60.0)
    assert ended.stdout == "still here\n", ended.stderr
    assert [file.path for file in store.list("searches")] == ["searches/one/fine/weights.safetensors"]


def test_work_that_is_done_is_not_watched_any_more() -> None:
    ended = subprocess.run([sys.executable, "-c", LET_GO], check=False, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "still here\n", "")
