"""Dispatchers of one database end up in one store, or are told why not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db import catalog, installation
from db.engine import writing
from workers.processes import ProcessName
from workers.storage.agreement import agree, known_identity
from workers.storage.errors import StorageError
from workers.storage.identity import MARKER, StoreIdentity, checked_store, read_marker
from workers.storage.store import open_store


def at_once(seconds: float) -> None:
    """Waits for nobody."""


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.storage.agreement.MARKER_SECONDS", 0.2)


def alive(engine: Engine, name: str) -> None:
    with writing(engine) as session:
        catalog.publish_node(session, f"node of {name}", {"dispatcher": name})


def grow_old(engine: Engine) -> None:
    """As if the store had been decided on long ago."""
    with writing(engine) as session:
        session.connection().exec_driver_sql("UPDATE settings SET updated_at = '2020-01-01 00:00:00.000000'")


def test_the_first_dispatcher_decides_and_later_ones_agree(engine: Engine, tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    assert known_identity(engine) is None
    first = agree(engine, url, "a:1")
    alive(engine, "a:1")
    assert agree(engine, url, "b:2") == agree(engine, url, "a:3") == first == known_identity(engine)
    assert json.loads((tmp_path / "store" / MARKER).read_text())["id"] == first.id


def test_a_dispatcher_with_a_store_of_its_own_is_refused_while_others_live(engine: Engine, tmp_path: Path) -> None:
    agree(engine, str(tmp_path / "one"), "a:1")  # it has published nothing yet
    with pytest.raises(
        StorageError, match=r"not the one that a:1 uses .*one\): attune-store.json is not there.*ATTUNE_STORAGE"
    ):
        agree(engine, str(tmp_path / "two"), "b:2", wait=at_once)
    grow_old(engine)
    alive(engine, "a:1")
    with pytest.raises(StorageError, match="not the one that a:1 uses"):
        agree(engine, str(tmp_path / "two"), "b:2", wait=at_once)
    assert not (tmp_path / "two").exists()


def test_of_dispatchers_that_start_at_once_with_folders_of_their_own_one_wins(engine: Engine, tmp_path: Path) -> None:
    outcomes: list[StoreIdentity | StorageError] = []

    def start(name: str) -> None:
        try:
            outcomes.append(agree(engine, str(tmp_path / name), f"{name}:1", wait=at_once))
        except StorageError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    won = [outcome for outcome in outcomes if isinstance(outcome, StoreIdentity)]
    assert len(outcomes) == 4
    assert won == [known_identity(engine)]


def test_a_store_that_nobody_uses_any_more_may_be_left(engine: Engine, tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    dead = ProcessName.of(other.pid)  # with its start: by now another process may have its number
    other.kill()
    other.wait()
    before = agree(engine, str(tmp_path / "one"), str(dead))
    after = agree(engine, str(tmp_path / "two"), str(ProcessName.own()), wait=at_once)
    assert after.id != before.id
    assert known_identity(engine) == after
    with pytest.raises(StorageError, match="not the one"):
        agree(engine, str(tmp_path / "one"), "c:1", wait=at_once)


def test_another_databases_files_are_not_taken_over(engine: Engine, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write(MARKER, b'{"id": "theirs"}')
    store.write("searches/1/2/weights.safetensors", b"precious")
    with pytest.raises(StorageError, match="holds files of another database's searches"):
        agree(engine, str(tmp_path), "a:1")
    store.remove(MARKER)
    mine = agree(engine, str(tmp_path), "a:1")
    assert read_marker(store) == mine.id
    # the same when this database has left a store of its own
    other = tmp_path / "other"
    open_store(str(other)).write(MARKER, b'{"id": "theirs"}')
    open_store(str(other)).write("searches/1/2/weights.safetensors", b"precious")
    grow_old(engine)
    with pytest.raises(StorageError, match="holds files of another database's searches"):
        agree(engine, str(other), "a:1", wait=at_once)


def test_a_volume_that_is_not_mounted_is_told_from_an_empty_store(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "store")
    identity = agree(engine, url, "a:1")
    grow_old(engine)
    (tmp_path / "store" / MARKER).unlink()
    monkeypatch.setattr("workers.storage.agreement._has_files", lambda engine: True)
    with pytest.raises(StorageError, match="is a volume not mounted") as told:
        agree(engine, url, "a:1", wait=at_once)
    (tmp_path / "store" / MARKER).write_text(str(told.value).partition("write ")[2].partition(" into")[0])
    assert agree(engine, url, "a:1", wait=at_once) == identity


def test_a_process_that_sees_another_store_names_its_machine(engine: Engine, tmp_path: Path) -> None:
    identity = agree(engine, str(tmp_path / "store"), "a:1")
    assert checked_store(identity, "node 7").url == identity.url
    with pytest.raises(StorageError, match=r"node 7 sees another store at .*elsewhere.*is not there.*ATTUNE_STORAGE"):
        checked_store(StoreIdentity(str(tmp_path / "elsewhere"), identity.id), "node 7")
    with pytest.raises(StorageError, match=r"node 7 sees another store .*its id is .*, not other"):
        checked_store(StoreIdentity(identity.url, "other"), "node 7")
    with pytest.raises(StorageError, match=r"node 7 cannot use the store: .*nope"):
        checked_store(StoreIdentity("nope://x", identity.id), "node 7")
    (tmp_path / "store" / MARKER).write_text("[]")
    with pytest.raises(StorageError, match=r"node 7 cannot use the store: .*damaged"):
        checked_store(identity, "node 7")


def test_a_fact_is_changed_only_by_who_knows_the_last_one(engine: Engine) -> None:
    with writing(engine) as session:
        first = installation.put_first(session, "x", {"n": 1})
        assert installation.put_first(session, "x", {"n": 2}).value == {"n": 1}
    grow_old(engine)
    with writing(engine) as session:
        known = installation.get(session, "x")
        assert known is not None
        assert not installation.replace(session, "x", {"n": 3}, since=first.updated_at)
        assert installation.replace(session, "x", {"n": 4}, since=known.updated_at)
        assert not installation.replace(session, "x", {"n": 5}, since=known.updated_at)
    with writing(engine) as session:
        assert installation.get(session, "x").value == {"n": 4}  # type: ignore[union-attr]
