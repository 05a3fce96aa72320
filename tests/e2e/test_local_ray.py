"""A dispatcher with a Ray of its own: what it starts ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, until


def processes(home: Path) -> set[int]:
    """Drivers that work for this home."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            ours = f"ATTUNE_HOME={home}".encode() in (entry / "environ").read_bytes()
            if ours and b"workers.driver" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


@pytest.mark.slow
def test_a_killed_dispatcher_takes_its_drivers_along(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "RAY_"))}
    environment = kept | {"ATTUNE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "ATTUNE_SLOTS": "1"}
    with (tmp_path / "dispatcher.log").open("wb") as log:
        dispatcher = subprocess.Popen(
            [sys.executable, "-m", "workers.dispatcher"], env=environment, stdout=log, stderr=log
        )
    try:
        until(lambda: b"dispatcher.ready" in (tmp_path / "dispatcher.log").read_bytes(), 90)
        until(lambda: processes(tmp_path), 30)
    finally:
        dispatcher.send_signal(signal.SIGKILL)
        dispatcher.wait(10)
    until(lambda: not processes(tmp_path), 10)
