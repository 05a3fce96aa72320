"""Where data sets are on this machine: folders below ATTUNE_DATA, and others that the operator has registered by name.

A request names a data set; only the operator decides which folder that is, by putting it below the root or with
`attune data add NAME PATH`. What a symbolic link below the root points to outside of it is not read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from search.errors import shown
from workers.datasets.errors import DatasetError
from workers.datasets.locks import locked

REGISTRATIONS = "attune-data.json"
"""In the root: the folders elsewhere that the operator has registered."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "letters, digits, '.', '_' and '-', at most 64, the first one a letter or a digit"
FILE_VERSION = 1
WAIT_SECONDS = 30.0
"""For another process that registers a folder."""


@dataclass(frozen=True)
class Place:
    """The folder of a data set. path: real (no link in it). inside: links in it may point below these folders."""

    path: Path
    inside: tuple[Path, ...]
    registered: bool

    def admits(self, real: Path) -> bool:
        """Whether the real path of a link may be read."""
        return any(real.is_relative_to(folder) for folder in self.inside)


def is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def folder_names(root: Path) -> list[str]:
    """The names of the folders below `root`, hidden ones left out; none when `root` is not there."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatasetError(f"The folder of data sets cannot be read: {error}") from error


def find(root: Path, name: str) -> Place | None:
    """The folder called `name`, or None if there is none.

    DatasetError when it is a link out of the root, or registered and gone.
    """
    if not is_name(name):
        return None
    registered = registrations(root).get(name)
    if registered is not None:
        if not registered.is_dir():
            raise DatasetError(f"{name} is registered as {registered}, and there is no such folder.")
        real = registered.resolve()
        return Place(real, (real,), registered=True)
    path, home = root / name, root.resolve()
    if not path.is_dir():
        return None
    real = path.resolve()
    if not real.is_relative_to(home):
        raise DatasetError(
            f"{path} is a symbolic link out of {root}, to {real}: `attune data add {name} {real}` registers it."
        )
    return Place(real, (real, home), registered=False)


def registrations(root: Path) -> dict[str, Path]:
    """The registered folders by name; DatasetError when the file is broken."""
    path = root / REGISTRATIONS
    try:
        data = json.loads(path.read_text("utf-8"))
        folders = {str(name): Path(folder) for name, folder in data["folders"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"The registrations in {path} cannot be read: {error!r}") from error
    wrong = [name for name, folder in folders.items() if not is_name(name) or not folder.is_absolute()]
    if data.get("version") != FILE_VERSION or wrong:
        what = f"{shown(wrong[0])} is no name with an absolute path" if wrong else "it is of another version"
        raise DatasetError(f"The registrations in {path} cannot be used: {what}.")
    return folders


def register(root: Path, name: str, folder: Path, *, replace: bool = False) -> None:
    """Records that `folder` (absolute) is called `name`; DatasetError when another folder has the name already."""
    with _alone(root):
        known = registrations(root)
        if known.get(name) == folder:
            return
        if name in known and not replace:
            raise DatasetError(f"{name} is registered as {known[name]}; --replace makes it {folder}.")
        if name not in known and (root / name).is_dir() and not (root / name).is_symlink():
            raise DatasetError(f"{name} is a folder in {root} already: choose another name.")
        data = {"version": FILE_VERSION, "folders": {key: str(path) for key, path in (known | {name: folder}).items()}}
        write_file(root / REGISTRATIONS, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Writes a file so that others see the old content or the new one, also after a crash."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One writer of the registrations at a time; DatasetError when the root cannot be written."""
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(root / f".{REGISTRATIONS}.lock", WAIT_SECONDS))
        except OSError as error:
            raise DatasetError(f"Nothing can be registered in {root}: {error}") from error
        yield
