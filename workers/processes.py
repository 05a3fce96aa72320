"""Processes by a name that outlives whoever started them: "host:pid:start time".

A process id alone may belong to somebody else by now, and to nobody at all in another container. So the name also holds
the start time in ticks since the machine's start (the wall clock may jump) and which machine and process namespace it
counts in: another start of the machine, or a container of the same host name, is another scope.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

GONE = ("Z", "X")
"""States of a process that has ended and was not fetched by its parent."""


@dataclass(frozen=True)
class ProcessName:
    """A process of some machine. start: "scope-ticks", see above."""

    host: str
    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> ProcessName | None:
        """The living process with this id on this machine, or None."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(socket.gethostname(), pid, f"{_scope()}-{ticks}")

    @classmethod
    def own(cls) -> ProcessName:
        name = cls.of(os.getpid())
        assert name is not None
        return name

    @classmethod
    def parse(cls, text: str | None) -> ProcessName | None:
        """From "host:pid:start time"; None for anything else."""
        host, pid, start = ([*(text or "").rsplit(":", 2), "", ""])[:3]
        return cls(host, int(pid), start) if host and pid.isdigit() and start else None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell if the process lives."""
        return self.host == socket.gethostname() and self.start.rpartition("-")[0] == _scope()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. Only for processes that are here."""
        return ProcessName.of(self.pid) == self


class Watched:
    """A process of this machine that may be somebody else's child: signals reach it and never a later one of its id."""

    def __init__(self, name: ProcessName, child: subprocess.Popen[bytes] | None = None) -> None:
        self.name = name
        self._child = child
        self._process: psutil.Process | None = None
        if child is None:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(name.pid)
                self._process = process if name.is_alive else None

    @property
    def pid(self) -> int:
        return self.name.pid

    @property
    def is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._process is not None and self.name.is_alive

    @property
    def code(self) -> int | None:
        """The exit status of a child that has ended; None for others, whose status only their parent learns."""
        return None if self._child is None else self._child.poll()

    def send(self, signal_number: int) -> None:
        """Sends a signal; nothing happens when the process has ended."""
        if self._child is not None:
            self._child.send_signal(signal_number)
        elif self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._process.send_signal(signal_number)

    def wait(self, seconds: float) -> bool:
        """Whether the process has ended within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.is_alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True


@functools.cache
def _scope() -> str:
    """Names this start of this machine, and the namespace that process ids count in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        boot = socket.gethostname()
    return hashlib.sha256(boot.encode()).hexdigest()[:8]


def _start_ticks(pid: int) -> int | None:
    """When the process started, or None when there is none or only its shell."""
    if not sys.platform.startswith("linux"):
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 100)
        except psutil.NoSuchProcess:
            return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in GONE else int(fields[19])
