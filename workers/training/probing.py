"""How fast trials train side by side on one device: real processes, as many at once, a few seconds of training each.

`python -m workers.training.probing` is one of these processes: it reads a request from its standard input, gets ready,
waits for a line, trains and prints what it has measured.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

from workers.training.evaluators import load_plugins, start_session
from workers.training.request import TrialRequest

SECONDS = 5.0
"""How long each process trains."""
TIMEOUT = 300.0
"""Seconds until all processes have imported torch and opened the data set; and for each to say what it has measured."""
MOST_EPOCHS = 1000
"""A probe may run through more epochs of tiny data than a trial has."""
NO_MEMORY = 3
"""Exit status of a process for which memory has run out."""
LONGEST_ERROR = 500


class ProbeError(Exception):
    """The probe has measured nothing; the message says why."""


class ProbeMemoryError(ProbeError):
    """Memory has run out with so many processes at once."""


@dataclass(frozen=True)
class Pace:
    """images_per_second: of all processes together; memory: bytes that one of them took; available: bytes that there
    are for all of them. Memory is the GPU's, or for a request on processors the machine's."""

    images_per_second: float
    memory: int
    available: int


def measure(request: TrialRequest, trials: int, seconds: float = SECONDS, share: float = 1.0) -> Pace:
    """How fast `trials` processes train `request` at once, with nothing else on the GPU.

    share: of the GPU's memory for each. Raises ProbeMemoryError, and ProbeError for whatever else goes wrong.
    """
    asked = {"request": request.to_json(), "seconds": seconds, "share": share}
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(asked)) for _ in range(trials)]
        deadline = time.monotonic() + TIMEOUT
        for process in processes:
            process.wait_until_ready(deadline)
        for process in processes:
            process.go()
        found = [process.answer(seconds + TIMEOUT) for process in processes]
    speed, taken = sum(each["images_per_second"] for each in found), max(int(each["memory"]) for each in found)
    # of a GPU each of them has told what all have taken
    return Pace(speed, taken // trials if _on_gpu(request) else taken, int(found[0]["available"]))


class _Process:
    """One process that trains. errors: where its standard error goes."""

    def __init__(self, popen: subprocess.Popen[str], errors: IO[bytes]) -> None:
        self._popen = popen
        self._errors = errors

    def wait_until_ready(self, deadline: float) -> None:
        assert self._popen.stdout is not None
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._popen.stdout], [], [], left)[0]:
            raise ProbeError(f"It was not ready after {TIMEOUT:g} s.")
        if not self._popen.stdout.readline():
            self._fail()

    def go(self) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write("go\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def answer(self, timeout: float) -> dict[str, float]:
        try:
            said, _ = self._popen.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ProbeError(f"It said nothing for {timeout:g} s.") from None
        if self._popen.returncode:
            self._fail()
        told: dict[str, float] = json.loads(said)
        return told

    def _fail(self) -> None:
        status = self._popen.wait(timeout=TIMEOUT)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"exit status {status}"
        raise (ProbeMemoryError if status == NO_MEMORY else ProbeError)(last[:LONGEST_ERROR])


@contextmanager
def _process(asked: Mapping[str, Any]) -> Iterator[_Process]:
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-m", "workers.training.probing"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as popen:
            try:
                assert popen.stdin is not None
                popen.stdin.write(json.dumps(asked) + "\n")
                popen.stdin.flush()
                yield _Process(popen, errors)
            finally:
                popen.kill()


def main() -> int:
    """One process of a probe."""
    told, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print is no part of the answer
    asked = json.loads(sys.stdin.readline())
    load_plugins()
    parsed = TrialRequest.from_json(asked["request"])
    import torch

    if _on_gpu(parsed):
        torch.cuda.set_per_process_memory_fraction(asked["share"])

    def ready() -> None:
        print("ready", file=told, flush=True)
        if not sys.stdin.readline():
            raise SystemExit(1)  # it has gone

    session = start_session(replace(parsed, compile="never", epochs=max(MOST_EPOCHS, parsed.epochs)))
    pace = getattr(session, "pace", None)
    if pace is None:
        raise ProbeError(f"{type(session).__name__} cannot be probed: it has no `pace`.")
    try:
        speed = pace(asked["seconds"], ready)
    except (torch.OutOfMemoryError, MemoryError) as error:
        print(str(error).splitlines()[0], file=sys.stderr)  # noqa: T201
        return NO_MEMORY
    taken, available = _memory(parsed)
    answer = {"images_per_second": speed, "memory": taken, "available": available}
    print(json.dumps(answer), file=told, flush=True)
    session.close()  # type: ignore[attr-defined]
    return 0


def _on_gpu(request: TrialRequest) -> bool:
    return request.device.startswith("cuda")


def _memory(request: TrialRequest) -> tuple[int, int]:
    """Bytes taken until now, and bytes that there are. Of a GPU all that is taken on it: the CUDA context belongs to a
    trial too, and no other call tells its size."""
    if _on_gpu(request):
        import torch

        free, total = torch.cuda.mem_get_info()
        return total - free, total
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, all_of_it


if __name__ == "__main__":
    raise SystemExit(main())
