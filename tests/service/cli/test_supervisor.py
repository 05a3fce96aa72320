"""Real child processes: restarted when they die, stopped together, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli import supervisor as module
from service.cli.supervisor import Child, Supervisor, tail
from tests.service.support import wait_until

SLEEPER = (
    "import pathlib, os, sys, time; pathlib.Path(sys.argv[1]).open('a').write(f'{os.getpid()}\\n'); time.sleep(600)\n"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
BROKEN = "import sys; print('cannot start'); sys.exit(3)\n"


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, str]:
    """The environment in which the small programs above are modules."""
    for name, text in (("sleeper", SLEEPER), ("stubborn", STUBBORN), ("broken", BROKEN)):
        (tmp_path / f"attune_test_{name}.py").write_text(text)
    return os.environ | {"PYTHONPATH": str(tmp_path)}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, modules: dict[str, str], said: list[str]) -> Iterator[object]:
    started: list[Supervisor] = []

    def one(name: str) -> tuple[Supervisor, Path]:
        pids = tmp_path / f"{name}.pids"
        child = Child(name, f"attune_test_{name}", [str(pids)], tmp_path / "logs" / f"{name}.log")
        found = Supervisor([child], modules, said.append)
        started.append(found)
        found.start()
        return found, pids

    yield one
    for found in started:
        found.stop()


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_child_that_dies_is_started_again(start: object, said: list[str]) -> None:
    found, pids = start("sleeper")  # type: ignore[operator]
    wait_until(lambda: len(pids_in(pids)) == 1)
    os.kill(pids_in(pids)[0], signal.SIGKILL)
    wait_until(lambda: len(pids_in(pids)) == 2)
    assert "starting it again" in said[0]
    found.stop()
    assert not any(alive(pid) for pid in pids_in(pids))


def test_a_child_that_does_not_listen_is_ended(start: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.5)
    found, pids = start("stubborn")  # type: ignore[operator]
    wait_until(lambda: len(pids_in(pids)) == 1)
    time.sleep(0.1)  # until the module's handler is there
    began = time.monotonic()
    found.stop()
    assert time.monotonic() - began < 5
    assert not alive(pids_in(pids)[0])


def test_a_child_that_cannot_start_is_told_with_its_log(
    start: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.01)
    found, _ = start("broken")  # type: ignore[operator]
    wait_until(lambda: found.failing() is not None)
    assert tail(tmp_path / "logs" / "broken.log")[-1] == "cannot start"


def test_children_of_a_killed_supervisor_stop(tmp_path: Path, modules: dict[str, str]) -> None:
    pids = tmp_path / "pids"
    program = (
        "import os, time; from pathlib import Path; from service.cli.supervisor import Child, Supervisor\n"
        f"child = Child('c', 'attune_test_sleeper', [{str(pids)!r}], Path({str(tmp_path / 'c.log')!r}))\n"
        "Supervisor([child], os.environ, print).start()\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], env=modules)
    wait_until(lambda: len(pids_in(pids)) == 1)
    parent.kill()
    parent.wait(10)
    wait_until(lambda: not alive(pids_in(pids)[0]))
