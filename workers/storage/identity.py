"""Which store this is: a marker file with the id that the database knows, so that two machines that write to
different places under one name find out before a result is lost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from workers.storage.errors import NotStored, StorageError
from workers.storage.store import Store, open_store

MARKER = "attune-store.json"


@dataclass(frozen=True)
class StoreIdentity:
    """What processes are told of the store: its URL, and the id that its marker holds."""

    url: str
    id: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def read_marker(store: Store) -> str | None:
    """The id of the store; None where there is no marker yet."""
    try:
        content = json.loads(store.read(MARKER))
        return str(content["id"])
    except NotStored:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{MARKER} in the store {store.url} is damaged: {error}") from error


def write_marker(store: Store, identity: str) -> None:
    store.write(MARKER, json.dumps({"id": identity, "what": "files of attune's trials"}).encode())


def checked_store(identity: StoreIdentity, where: str) -> Store:
    """The store, which this process has seen to be the right one. where: the machine, for the message.

    StorageError when it cannot be reached or is another one.
    """
    try:
        store = open_store(identity.url)
        found = read_marker(store)
    except StorageError as error:
        raise StorageError(f"{where} cannot use the store: {error}") from error
    if found is None:
        raise StorageError(
            f"{where} sees another store at {identity.url} than the dispatcher: {MARKER} is not there. "
            "Mount the same folder at the same path on every node, or set ATTUNE_STORAGE to a URL that all reach."
        )
    if found != identity.id:
        raise StorageError(
            f"{where} sees another store at {identity.url} than the dispatcher: its id is {found}, not {identity.id}. "
            "Mount the same folder at the same path on every node, or set ATTUNE_STORAGE to a URL that all reach."
        )
    return store
