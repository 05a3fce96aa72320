"""Checkpoints of one trial in the store: the last two while it runs, its weights and result when it has finished.

Names hold the SHA-256 of the content, so a file that was cut short or has lost a bit is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from workers.storage.errors import NotStored, StorageError
from workers.storage.layout import WEIGHTS
from workers.storage.quota import Quota
from workers.storage.store import Store
from workers.training.checkpoint import decode, decode_weights, encode, encode_weights
from workers.training.errors import StateError
from workers.training.evaluators import Session

KEPT = 2
SLACK = 0.05
"""Of a checkpoint, by which it may be larger than the one whose place it takes, however full the store is: it tells of
one epoch more."""
_NAME = re.compile(r"epoch-(\d{6})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A trial in the middle. epochs: the reports of all epochs so far, oldest first."""

    path: str
    state: dict[str, Any]
    epochs: list[dict[str, Any]]


@dataclass(frozen=True)
class Weights:
    """A file of the store: path relative to the store, size in bytes, SHA-256 (hex)."""

    path: str
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Finished:
    """A trial at its end, as its weights' file tells it. weights: None for a session that has none."""

    epochs: list[dict[str, Any]]
    result: dict[str, Any]
    weights: Weights | None


class Checkpoints:
    """The files of the trial at `prefix`. key: of its request; a file of another key is not its own."""

    def __init__(self, store: Store, prefix: str, key: str) -> None:
        self._store = store
        self._prefix = prefix
        self._key = key
        self._weights = f"{prefix}/{WEIGHTS}"
        self._quota = _quota_of(store)
        self._written: dict[str, int] = {}  # bytes of each checkpoint by path, the first to go first

    def write(self, session: Session, epochs: list[dict[str, Any]]) -> dict[str, int]:
        """Keeps the session as it is now; what was kept before the last one goes.

        Returns epoch and bytes. StorageError when the store refuses or would be over its quota, TypeError for a state
        that no file can hold; nothing is changed then.
        """
        content = encode(session.state(), {"key": self._key, "epochs": epochs})
        name = f"epoch-{session.epoch:06d}-{hashlib.sha256(content).hexdigest()}.safetensors"
        path = f"{self._prefix}/{name}"
        others = [known for known in self._written if known != path]
        self._put(path, content, instead_of=others[: -KEPT + 1])
        self._written = {known: self._written[known] for known in others} | {path: len(content)}
        self._forget(KEPT)
        return {"epoch": session.epoch, "bytes": len(content)}

    def newest(self, problems: list[str]) -> Iterator[Checkpoint]:
        """The checkpoints that verify, newest first; what is wrong with the others goes into `problems`.

        StorageError when the store cannot be reached.
        """
        found = {file.path: file.bytes for file in self._store.list(self._prefix) if _NAME.fullmatch(_last(file.path))}
        self._written = dict(sorted(found.items()))  # their names begin with the epoch
        for path in sorted(found, reverse=True):
            try:
                yield self._read(path)
            except (StorageError, StateError) as error:
                problems.append(f"{_last(path)[:12]}: {error}")
                self.discard(path)

    def discard(self, path: str) -> None:
        """A checkpoint that is of no use is the first to go when the next one is written."""
        self._written = {path: self._written.get(path, 0)} | self._written

    def finish(self, network: dict[str, Any] | None, epochs: list[dict[str, Any]], result: dict[str, Any]) -> Finished:
        """Keeps weights and result, then removes the checkpoints: from now on the file says what came out.

        network: tensors by name. StorageError when the store refuses or would be over its quota: the checkpoints stay
        then.
        """
        about = {"key": self._key, "epochs": epochs, "result": result}
        content = encode_weights(network or {}, about)
        self._put(self._weights, content, instead_of=list(self._written))
        self._forget(0)
        return Finished(epochs, result, self._described(content) if network else None)

    def finished(self) -> Finished | None:
        """What the trial came to, if it had come to its end before; StateError when the file is damaged."""
        try:
            content = self._store.read(self._weights)
        except NotStored:
            return None
        network, about = decode_weights(content)
        if about.get("key") != self._key:
            raise StateError(f"{WEIGHTS} is of another trial.")
        return Finished(about["epochs"], about["result"], self._described(content) if network else None)

    def _described(self, content: bytes) -> Weights:
        return Weights(self._weights, len(content), hashlib.sha256(content).hexdigest())

    def _read(self, path: str) -> Checkpoint:
        named = _NAME.fullmatch(_last(path))
        content = self._store.read(path)
        if named is None or hashlib.sha256(content).hexdigest() != named[2]:
            raise StateError("its checksum is another one: it is cut short or damaged.")
        state, about = decode(content)
        if about.get("key") != self._key:
            raise StateError("it is of another trial.")
        return Checkpoint(path, state, about["epochs"])

    def _put(self, path: str, content: bytes, instead_of: Sequence[str]) -> None:
        """Writes a file in place of checkpoints that go afterwards; StorageError where that is over the quota."""
        self._quota.check(int(len(content) * (1 - SLACK)) - sum(self._written[old] for old in instead_of))
        self._store.write(path, content)
        self._quota.grew(len(content))

    def _forget(self, keep: int) -> None:
        """Removes all but the newest; one that cannot be removed is the janitor's."""
        for path in list(self._written)[: max(0, len(self._written) - keep)]:
            size = self._written.pop(path)
            with suppress(StorageError):
                self._store.remove(path)
                self._quota.grew(-size)


@lru_cache(maxsize=4)
def _quota_of(store: Store) -> Quota:
    """What this process knows of the store's quota, from trial to trial."""
    return Quota(store)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
