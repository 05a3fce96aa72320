"""All dispatchers of one database use one store: the first one's. Its id is in SQL and in the store's marker."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from db import artifacts, catalog, installation
from db.engine import now, reading, retrying
from db.ids import uuid7
from db.models import Setting
from workers.processes import ProcessName
from workers.storage.errors import StorageError
from workers.storage.identity import MARKER, StoreIdentity, checked_store, read_marker, write_marker
from workers.storage.layout import SEARCHES
from workers.storage.store import Store, open_store

SETTING = "storage"
ALIVE_SECONDS = 15.0
"""A dispatcher that has said something within this time may be at work."""
MARKER_SECONDS = 10.0
"""How long another dispatcher may take from its row in SQL to the marker in the store."""
ONE_STORE = "All dispatchers and nodes must reach one store by ATTUNE_STORAGE, a URL or a folder that they share."

log = structlog.get_logger()


def known_identity(engine: Engine) -> StoreIdentity | None:
    """What SQL says of the store; None before the first dispatcher has started."""
    with reading(engine) as session:
        known = installation.get(session, SETTING)
    return None if known is None else _identity(known)


def agreed_store(engine: Engine, url: str) -> StoreIdentity:
    """The dispatchers' store as this machine reaches it; StorageError when `url` is another one."""
    known = known_identity(engine)
    if known is None:
        raise StorageError("No dispatcher has decided on a store yet.")
    identity = StoreIdentity(url, known.id)
    checked_store(identity, f"This machine ({socket.gethostname()})")
    return identity


def agree(engine: Engine, url: str, owner: str, *, wait: Callable[[float], object] = time.sleep) -> StoreIdentity:
    """The identity of the store at `url`, once it is sure that all dispatchers of this database use it.

    owner: this dispatcher's name ("host:pid…"). Raises StorageError when the store cannot be reached, holds another
    database's files, has lost its own, or when other dispatchers that are alive use another one. An empty store takes
    the place of one that nobody uses any more.
    """
    store = open_store(url)
    known = _known_or_first(engine, store, owner)
    deadline = time.monotonic() + MARKER_SECONDS
    while (marker := read_marker(store)) != known.value["id"]:
        others = _other_dispatchers(engine, known, owner)
        if not others:
            return _moved(engine, store, known, marker, owner)
        if time.monotonic() >= deadline:
            seen = f"{MARKER} is not there" if marker is None else f"its id is {marker}, not {known.value['id']}"
            raise StorageError(
                f"The store {url} is not the one that {', '.join(others)} uses ({known.value['url']}): {seen}. "
                + ONE_STORE
            )
        wait(0.5)
    return StoreIdentity(url, known.value["id"])


def _known_or_first(engine: Engine, store: Store, owner: str) -> Setting:
    """What the database knows; if nothing, this store becomes its own.

    The row is written before the marker: of dispatchers that start at one moment with different folders, one wins.
    """
    with reading(engine) as session:
        known = installation.get(session, SETTING)
    if known is not None:
        return known
    marker = read_marker(store)
    _refuse_foreign(store, marker)
    identity = StoreIdentity(store.url, marker or uuid7())
    value = {**identity.to_json(), "by": owner}
    known = retrying(engine, lambda session: installation.put_first(session, SETTING, value))
    if known.value["id"] == identity.id:
        write_marker(store, identity.id)
    return known


def _moved(engine: Engine, store: Store, known: Setting, marker: str | None, owner: str) -> StoreIdentity:
    """Takes this store in place of the one before, which no dispatcher uses any more."""
    _refuse_foreign(store, marker)
    before = _identity(known)
    if before.url == store.url and _has_files(engine):
        raise StorageError(
            f"The store {store.url} has lost {MARKER}, and with it the files that the database knows: is a volume not "
            f'mounted? If they are gone for good, write {{"id": "{before.id}"}} into {MARKER} there and start again.'
        )
    identity = StoreIdentity(store.url, uuid7())
    value = {**identity.to_json(), "by": owner}
    if not retrying(engine, lambda s: installation.replace(s, SETTING, value, since=known.updated_at)):
        raise StorageError("Another dispatcher has just decided on the store: start this one again.")
    write_marker(store, identity.id)
    log.warning("storage.moved", before=before.url, now=identity.url)
    return identity


def _refuse_foreign(store: Store, marker: str | None) -> None:
    """A store whose marker this database does not know must be empty: its files could be another database's."""
    if marker is not None and store.list(SEARCHES):
        raise StorageError(
            f"The store {store.url} holds files of another database's searches. Set ATTUNE_STORAGE to another place, "
            f"or remove {MARKER} there to give the store to this database, which will then remove those files."
        )


def _has_files(engine: Engine) -> bool:
    with reading(engine) as session:
        return artifacts.any_known(session)


def _other_dispatchers(engine: Engine, known: Setting, owner: str) -> list[str]:
    """Names of other dispatchers that may be alive; one of this machine whose process is gone is not.

    The one that has decided on the store may not have published anything yet.
    """
    with reading(engine) as session:
        documents = [row.document for row in catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)]
        age = (now(session) - known.updated_at).total_seconds()
    names = {str(document["dispatcher"]) for document in documents if document.get("dispatcher")}
    if age < ALIVE_SECONDS:
        names.add(str(known.value["by"]))
    return sorted(name for name in names - {owner} if not _is_dead(name))


def _is_dead(dispatcher: str) -> bool:
    """Whether the dispatcher, "process@cluster", was a process of this machine and has ended."""
    process = ProcessName.parse(dispatcher.partition("@")[0])
    return process is not None and process.is_here and not process.is_alive


def _identity(known: Setting) -> StoreIdentity:
    return StoreIdentity(known.value["url"], known.value["id"])
