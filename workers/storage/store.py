"""Where files of trials are kept: a folder, or whatever fsspec reaches by a URL (`s3://bucket/attune`, `gs://…`).

Files are written whole or not at all: into a folder through a temporary file that is synced and renamed, elsewhere by
one put. A path is relative to the store, its parts are plain names, so none leads out of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from workers.storage import local
from workers.storage.errors import NotStored, StorageError

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
LONGEST_PATH = 1000
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"})
"""Protocols that have no folders: what fsspec would make there is a bucket."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a store. path: relative to the store; size in bytes."""

    path: str
    bytes: int


class Store:
    """Files under one root. Every method raises StorageError when the store cannot be reached or refuses.

    url: what `open_store` was given, for messages.
    """

    def __init__(self, files: AbstractFileSystem, root: str, url: str) -> None:
        self.url = url
        self._files = files
        self._root = root.rstrip("/")
        self._folder = Path(root) if isinstance(files, LocalFileSystem) else None

    def write(self, path: str, data: bytes) -> None:
        """Puts a file there, in place of the one that may be there; all of it or nothing."""
        with self._told("write", path):
            if self._folder is not None:
                local.write(self._folder, checked(path), data)
            else:
                self._put(self._full(path), data)

    def read(self, path: str) -> bytes:
        """The content; NotStored when there is no such file."""
        with self._told("read", path):
            if self._folder is not None:
                return local.inside(self._folder, checked(path)).read_bytes()
            content: bytes = self._files.cat_file(self._full(path))
            return content

    def exists(self, path: str) -> bool:
        with self._told("look for", path):
            if self._folder is not None:
                return local.inside(self._folder, checked(path)).is_file()
            self._files.invalidate_cache()
            return bool(self._files.isfile(self._full(path)))

    def size(self, path: str) -> int:
        """Bytes of the file; NotStored when there is no such file."""
        with self._told("look at", path):
            if self._folder is not None:
                return local.inside(self._folder, checked(path)).stat().st_size
            self._files.invalidate_cache()
            return int(self._files.size(self._full(path)))

    def list(self, prefix: str = "") -> list[StoredFile]:
        """Every file below the folder `prefix` (the whole store by default), by path; none when it is not there."""
        with self._told("list", prefix):
            if self._folder is not None:
                found = local.walk(self._folder, checked(prefix) if prefix else "")
            else:
                found = self._walk(prefix)
            return sorted((StoredFile(*file) for file in found), key=lambda file: file.path)

    def remove(self, path: str) -> None:
        """Removes a file, and folders that it leaves empty; nothing happens when it is not there."""
        with self._told("remove", path):
            if self._folder is not None:
                local.remove(self._folder, checked(path))
                return
            with suppress(FileNotFoundError):
                self._files.rm_file(self._full(path))

    def remove_all(self, prefix: str) -> None:
        """Removes the folder `prefix` with all that is in it; nothing happens when it is not there."""
        with self._told("remove", prefix):
            if self._folder is not None:
                local.remove_all(self._folder, checked(prefix))
                return
            self._files.invalidate_cache()
            with suppress(FileNotFoundError):
                self._files.rm(self._full(prefix), recursive=True)

    def local_path(self, path: str) -> Path | None:
        """Where the file is on this machine; None for a store that is not a folder."""
        return None if self._folder is None else local.inside(self._folder, checked(path))

    def _put(self, whole: str, data: bytes) -> None:
        try:
            self._files.pipe_file(whole, data)
        except FileNotFoundError as error:
            protocol = self._files.protocol
            if OBJECT_STORES & ({protocol} if isinstance(protocol, str) else {*protocol}):
                raise StorageError(f"Cannot write to the store {self.url}: there is no such bucket.") from error
            self._files.makedirs(whole.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(whole, data)

    def _full(self, path: str) -> str:
        return f"{self._root}/{checked(path)}"

    def _walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Files of a store that is not a folder. Those whose names are none of ours are passed over."""
        self._files.invalidate_cache()
        start = self._full(prefix) if prefix else self._root
        found: dict[str, dict[str, Any]] = self._files.find(start, detail=True)
        beginning = self._root.strip("/")
        for name, info in found.items():
            path = name.strip("/")[len(beginning) :].lstrip("/")
            if is_path(path):
                yield path, int(info["size"] or 0)

    @contextmanager
    def _told(self, doing: str, path: str) -> Iterator[None]:
        """Turns whatever the file system raises into a sentence that names the store."""
        try:
            yield
        except StorageError:
            raise
        except FileNotFoundError as error:
            raise NotStored(f"There is no {path!r} in the store {self.url}.") from error
        except Exception as error:  # every file system has exceptions of its own
            what = str(error) or type(error).__name__
            raise StorageError(f"Cannot {doing} {path!r} in the store {self.url}: {what}") from error


def open_store(url: str) -> Store:
    """The store at a URL or a folder; the folder is created when something is written.

    StorageError when fsspec does not know the protocol or lacks the package for it.
    """
    try:
        files, root = url_to_fs(url)
    except ImportError as error:
        raise StorageError(f"ATTUNE_STORAGE={url}: {error}. Install it on every node.") from error
    except Exception as error:  # what a file system raises that cannot connect
        raise StorageError(f"ATTUNE_STORAGE={url} cannot be opened: {error}") from error
    return Store(files, root, url)


def is_path(path: str) -> bool:
    """Whether this is a relative path of plain names: no "..", no empty part, no leading dot."""
    return 0 < len(path) <= LONGEST_PATH and all(_PART.fullmatch(part) for part in path.split("/"))


def checked(path: str) -> str:
    """The path; StorageError for one that could lead out of the store."""
    if not is_path(path):
        raise StorageError(f"{path!r} is no path of a store: letters, digits, '.', '_', '-' between slashes.")
    return path
