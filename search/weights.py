"""Initial weights by name: the files in the operator's folder, and what the workers tell of them (torch-free).

A request names weights; the operator decides what there is: files NAME.safetensors, NAME.pth or NAME.pt in the
folder ATTUNE_WEIGHTS, the same on every machine that runs trials. Nothing is downloaded and no path comes from a
request. `search.loading` reads them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from search.errors import SpecError, shown

SUFFIXES = (".safetensors", ".pth", ".pt")
VARIABLE = "ATTUNE_WEIGHTS"
FIELD = "init.weights"
"""Where a request names weights."""


@dataclass(frozen=True)
class Weights:
    """Weights as a search uses them. fingerprint: SHA-256 (hex) of the file."""

    name: str
    fingerprint: str


def weights_folder() -> Path | None:
    """The operator's folder, if there is one."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def registered(folder: Path | None) -> dict[str, Path]:
    """The files in `folder` by the name that a request uses.

    OSError when the folder cannot be read; SpecError for two files of one name, as which is meant cannot be told.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder is not None else []:
        if path.suffix in SUFFIXES and path.is_file():
            if path.stem in found:
                raise SpecError.one(FIELD, f"{found[path.stem].name} and {path.name} in {folder} have one name.")
            found[path.stem] = path
    return found


def find_file(name: str, folder: Path | None) -> Path:
    """The file of the weights called `name`; SpecError with the names that are there otherwise."""
    known = registered(folder)
    if name not in known:
        where = "" if known else f" None are registered here: the operator sets {VARIABLE} to a folder of them."
        raise SpecError.one(FIELD, f"There are no weights {shown(name)}.{where}", tuple(known))
    return known[name]


def fingerprint(path: Path) -> str:
    """SHA-256 (hex) of the file: two results share their initial weights when this agrees."""
    status = path.stat()
    return _fingerprint(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _fingerprint(path: Path, size: int, changed: int) -> str:
    """Remembered while size and time of the last change stay, as trial after trial starts from the same file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprints(folder: Path | None) -> dict[str, str]:
    """Fingerprints by name, as they are published. Raises as `registered` does."""
    return {name: fingerprint(path) for name, path in registered(folder).items()}


def published(documents: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Fingerprints by name of all that machines have published (their documents' "weights").

    A name that does not mean the same file everywhere is left out: what a trial would start from would depend on
    the machine that it happens to run on.
    """
    found: dict[str, set[str]] = {}
    for document in documents:
        for name, digest in (document.get("weights") or {}).items():
            found.setdefault(name, set()).add(digest)
    return {name: digests.pop() for name, digests in sorted(found.items()) if len(digests) == 1}


def choose(name: str, known: Mapping[str, str], pinned: str | None = None) -> Weights:
    """The published weights called `name`; SpecError listing the names otherwise, or when they are no longer the
    file with the fingerprint `pinned`."""
    if name not in known:
        why = "" if known else f" No worker has published any: the operator sets {VARIABLE} to a folder of them."
        raise SpecError.one(FIELD, f"Unknown weights {shown(name)}.{why}", tuple(known))
    if pinned not in (None, known[name]):
        text = f"The weights {shown(name)} are another file now; leave the fingerprint out to use it."
        raise SpecError.one("init.fingerprint", text, (known[name],))
    return Weights(name, known[name])
