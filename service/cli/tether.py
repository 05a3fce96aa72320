"""`python -m service.cli.tether PARENT MODULE …`: becomes `python -m MODULE …`, and stops when process PARENT is gone.

A supervisor that is killed with -9 cannot stop its children; on Linux the kernel does it then, with SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2). The setting outlives exec."""


def tie_to(parent: int) -> None:
    """From now on, the death of the thread that started this process sends it SIGTERM (Linux only)."""
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit(1)  # the parent died before the call above


if __name__ == "__main__":
    tie_to(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
