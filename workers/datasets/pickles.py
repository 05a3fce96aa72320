"""Reads pickles that hold numbers, texts, plain containers and numpy arrays, and nothing else.

Unpickling calls whatever a file names, so that a file from elsewhere can run any program. CIFAR comes as pickles; these
are read with the few names that numpy's arrays need.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workers.datasets.errors import DatasetError

# numpy has moved this function; old pickles name the old place
_RECONSTRUCT: Callable[..., Any] = np._core.multiarray._reconstruct  # type: ignore[attr-defined]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What Python 3 writes for bytes in old protocols; other codecs could unpack a small file into a huge one."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the codec {encoding!r} is not allowed")
    return text.encode("latin1")


def _dtype(*arguments: Any) -> np.dtype[Any]:
    """Numbers and truth values; an array of objects could hold anything."""
    made: np.dtype[Any] = np.dtype(*arguments)
    if made.kind not in "biuf":
        raise pickle.UnpicklingError(f"arrays of {made} are not allowed")
    return made


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


class PlainUnpickler(pickle.Unpickler):
    """Refuses every name but those of numpy's arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")
        return ALLOWED[module, name]


def load(path: Path) -> Any:
    """What the pickle holds (text of Python 2 as latin-1); DatasetError when it holds more or is broken."""
    try:
        with path.open("rb") as file:
            return PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise DatasetError(
            f"{path} is no pickle of arrays and plain values: {error or type(error).__name__}"
        ) from error
