"""Runs the service's processes as children: started together, restarted when they die, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 27.0
"""What children get to stop by themselves; with the rest of the clean-up, everything is gone within 30 s."""
FIRST_DELAY, LONGEST_DELAY, HEALTHY_SECONDS = 0.5, 30.0, 60.0
LOG_BYTES = 20_000_000


@dataclass
class Child:
    """A process that should be running. module: what `python -m` runs; its output goes to `log`."""

    name: str
    module: str
    arguments: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0
    next_start: float = 0.0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Supervisor:
    """Keeps children running from `start` to `stop`; `say` is told what happens.

    Children lead process groups of their own, so that Ctrl-C in a terminal reaches only the supervisor, and are tied
    to its life (`service.cli.tether`), so that they stop even when it is killed.
    """

    children: Sequence[Child]
    environment: Mapping[str, str]
    say: Callable[[str], None]
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the children from a thread that lives as long as they do (a child is tied to that thread)."""
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Asks every child to stop, waits, and ends what is left. Returns when nothing runs any more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS + 4)

    def failing(self) -> Child | None:
        """A child that died at least three times in a row without a minute of work in between."""
        return next((child for child in self.children if child.failures >= 3), None)

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for child in self.children:
                self._tend(child)
        self._end_all()

    def _tend(self, child: Child) -> None:
        now = time.monotonic()
        if child.running:
            if child.failures and now - child.started > HEALTHY_SECONDS:
                child.failures = 0
            return
        if child.process is not None:
            code = child.process.wait()
            child.process = None
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2**child.failures)
            child.failures += 1
            child.next_start = now + delay
            self.say(f"{child.name} ended with code {code}; starting it again in {delay:g} s (see {child.log})")
        if now >= child.next_start:
            self._launch(child)

    def _launch(self, child: Child) -> None:
        child.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if child.log.exists() and child.log.stat().st_size > LOG_BYTES:
            child.log.replace(child.log.with_suffix(".1.log"))
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                [sys.executable, "-m", "service.cli.tether", str(os.getpid()), child.module, *child.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
            )
        child.started = time.monotonic()

    def _end_all(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        alive = [child.process for child in self.children if child.process is not None and child.running]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"process {process.pid} did not stop in {STOP_SECONDS:g} s; ending it")
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a child and whatever it left behind in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def tail(log: Path, lines: int = 15) -> list[str]:
    """The last lines of a log."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        return file.read().decode(errors="replace").splitlines()[-lines:]
