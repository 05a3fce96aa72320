"""Stores on file systems of several kinds: a folder, fsspec's memory, a folder of it, and a folder through pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.fs
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper

from workers.storage.store import Store, open_store

KINDS = ("folder", "memory", "dir", "arrow")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, once on each kind of file system."""
    name = tmp_path.name
    match request.param:
        case "folder":
            yield open_store(str(tmp_path / "store"))
        case "memory":
            yield open_store(f"memory://{name}/store")
        case "dir":
            yield open_store(f"dir::memory://{name}/store")
        case "arrow":
            (tmp_path / "store").mkdir()
            files = ArrowFSWrapper(pyarrow.fs.LocalFileSystem(), skip_instance_cache=True)
            yield Store(files, str(tmp_path / "store"), "arrow")
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{name}"):
        memory.rm(f"/{name}", recursive=True)
