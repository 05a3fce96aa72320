"""What the pages load, all of it from here: our own styles and scripts, and Plotly as its Python package ships it."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
COMPRESS_ABOVE = 2_000
"""Bytes."""


@dataclass(frozen=True)
class Asset:
    """A file as it is sent. packed: gzip, for clients that take it; None where it would not pay."""

    content: bytes
    packed: bytes | None
    media_type: str
    etag: str


def names() -> frozenset[str]:
    """Every asset there is; a request can name nothing else."""
    return frozenset(path.name for path in STATIC.iterdir() if path.suffix in TYPES) | {"plotly.min.js"}


@cache
def load(name: str) -> Asset:
    """The asset called `name`, one of `names`; read and packed once."""
    path = _plotly() if name == "plotly.min.js" else STATIC / name
    content = path.read_bytes()
    packed = gzip.compress(content, 6, mtime=0) if len(content) > COMPRESS_ABOVE else None
    return Asset(content, packed, TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:20]}"')


def url(name: str) -> str:
    """Where a page finds the asset."""
    return f"/static/{name}"


@cache
def plotly_style_ids() -> tuple[str, ...]:
    """Ids of the style elements that Plotly's maps would add, which our content policy forbids and we do not draw.

    It adds none whose id is taken already.
    """
    text = load("plotly.min.js").content.decode()
    return tuple(sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', text))))


def _plotly() -> Path:
    """Found without importing plotly, which takes a while."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package plotly is not installed")
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
