"""Where a trial ran: versions, device, platform and code revision, stored with its result so that it can be rerun."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("attune", "torch", "torchvision", "numpy", "ray", "scikit-learn")
REVISION_VARIABLE = "ATTUNE_REVISION"
UNKNOWN = "unknown"


@lru_cache(maxsize=8)
def environment(device: str = "cpu") -> dict[str, str]:
    """Everything as strings; what cannot be found out is "unknown". Imports torch."""
    import torch

    found = {name: _version(name) for name in PACKAGES}
    found |= {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(device),
        "cuda": torch.version.cuda or "none",
        "cudnn": str(torch.backends.cudnn.version() or "none"),  # type: ignore[no-untyped-call]
        "revision": code_revision(),
    }
    return found


def device_name(device: str = "cpu") -> str:
    """The GPU's name as CUDA tells it, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(torch.device(device))
    return _processor()


def code_revision() -> str:
    """ATTUNE_REVISION (images set it), else git's commit of this checkout, "+changes" if files differ from it."""
    if os.environ.get(REVISION_VARIABLE):
        return os.environ[REVISION_VARIABLE]
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return UNKNOWN
    return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    # an installed copy may lie below somebody else's repository
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or UNKNOWN
