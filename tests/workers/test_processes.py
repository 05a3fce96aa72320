"""Names of processes: a later process with the same id is another one, and never gets a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from workers.processes import ProcessName, Watched


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_name_survives_text_and_says_whether_its_process_lives(sleeper: subprocess.Popen[bytes]) -> None:
    name = ProcessName.of(sleeper.pid)
    assert name is not None
    assert ProcessName.parse(str(name)) == name
    assert name.is_here
    assert name.is_alive
    sleeper.kill()
    while name.is_alive:  # a zombie until it is waited for, and that counts as dead
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{sleeper.pid}"), "still a zombie"


def test_a_later_process_of_the_same_id_is_another_one(sleeper: subprocess.Popen[bytes]) -> None:
    name = ProcessName.of(sleeper.pid)
    assert name is not None
    scope, _, ticks = name.start.rpartition("-")
    before = replace(name, start=f"{scope}-{int(ticks) - 1}")
    assert before.is_here
    assert not before.is_alive
    watched = Watched(before)
    assert not watched.is_alive
    watched.send(signal.SIGKILL)
    assert watched.wait(1.0)
    time.sleep(0.1)
    assert sleeper.poll() is None, "a signal for a dead process has reached a living one"


def test_other_machines_and_other_starts_of_this_one_cannot_be_seen(sleeper: subprocess.Popen[bytes]) -> None:
    name = ProcessName.of(sleeper.pid)
    assert name is not None
    assert not replace(name, host="elsewhere").is_here
    assert not replace(name, start="00000000-1").is_here


@pytest.mark.parametrize("text", [None, "", "driver", "host:1", "host:one:x-1", ":1:x-1", "host:1:"])
def test_what_is_no_name_is_none(text: str | None) -> None:
    assert ProcessName.parse(text) is None


def test_somebody_elses_process_gets_signals_and_is_waited_for(sleeper: subprocess.Popen[bytes]) -> None:
    name = ProcessName.of(sleeper.pid)
    assert name is not None
    watched = Watched(name)
    assert watched.is_alive
    assert not watched.wait(0.05)
    watched.send(signal.SIGTERM)
    assert watched.wait(10.0)
    assert watched.code is None
    watched.send(signal.SIGTERM)  # nothing happens
    assert Watched(name, sleeper).code == -signal.SIGTERM
