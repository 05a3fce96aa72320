"""A store that is a folder: what fsspec's local file system leaves out, which is being safe against a crash.

A write goes into a temporary file beside its place, is synced, renamed, and the folder synced, so that after a power
cut there is the old file or the new one. Links that lead out of the folder are not followed.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from workers.storage.errors import StorageError

PARTIAL = ".partial"
"""Ends the names of temporary files: a process that was killed while it wrote leaves one."""
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})
"""What some network file systems say when a folder is to be synced."""


def inside(folder: Path, path: str) -> Path:
    """folder/path; StorageError when links lead out of the folder."""
    whole = folder / path
    real, root = os.path.realpath(whole), os.path.realpath(folder)
    if os.path.commonpath([real, root]) != root:
        raise StorageError(f"{path!r} leads out of the store {folder}.")
    return whole


def write(folder: Path, path: str, data: bytes) -> None:
    """Writes all of it or nothing. OSError when the disk is full, a quota is reached and the like."""
    target = inside(folder, path)
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        try:
            descriptor = _create(partial)
        except FileNotFoundError:
            _make_folder(target.parent)
            descriptor = _create(partial)
        with open(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
        os.replace(partial, target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    _sync(target.parent)


def walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """(path, bytes) of every file below prefix; links are passed over, and so is what vanishes meanwhile."""
    try:
        entries = list(os.scandir(inside(folder, prefix)))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        name = f"{prefix}/{entry.name}" if prefix else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder, name)
        elif entry.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):
                yield name, entry.stat(follow_symlinks=False).st_size


def remove(folder: Path, path: str) -> None:
    """Removes the file, and folders that it leaves empty."""
    target = inside(folder, path)
    target.unlink(missing_ok=True)
    _prune(folder, target.parent)


def remove_all(folder: Path, prefix: str) -> None:
    """Removes the folder with all that is in it; a file that is written into it meanwhile may stay."""
    target = inside(folder, prefix)
    shutil.rmtree(target, ignore_errors=True)
    if target.is_dir() and not target.is_symlink() and any(target.iterdir()):
        raise OSError(errno.ENOTEMPTY, "something is left", str(target))
    _prune(folder, target.parent)


def _prune(folder: Path, empty: Path) -> None:
    while empty != folder and folder in empty.parents:
        try:
            empty.rmdir()
        except OSError:  # somebody else's file is in it
            return
        empty = empty.parent


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _make_folder(folder: Path) -> None:
    """The folder and those above it, each synced into the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Makes the names in the folder last."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder above the store that may be passed through but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
