"""What the janitor removes, what it must never touch, and that many of them are as good as one."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, text, update
from structlog.testing import capture_logs

from db import idempotency, installation, searches
from db.engine import reading, writing
from db.ids import uuid7
from db.models import Artifact, IdempotencyKey, Search, Trial
from tests.workers.janitor.conftest import SPEC, House, needed, uneven, until
from workers.orders import Failure, Order, Result
from workers.storage.agreement import SETTING
from workers.storage.errors import StorageError
from workers.storage.identity import MARKER, StoreIdentity


def test_what_a_search_needs_is_kept_as_long_as_the_search(house: House) -> None:
    search_id = house.search(uneven)
    trials = house.lab.trials(search_id)
    wanted = needed(house.lab.search(search_id), trials)
    trained = {t.id for t in trials if t.status == "succeeded"}
    assert 0 < len(wanted & trained) < len(trained)
    assert house.tidy(keep_days=14).removed == []
    house.age(trials, 365)
    assert len(house.tidy(keep_days=14).removed) == len(trained - wanted)
    assert house.kept(search_id) == trained & wanted
    assert {path.split("/")[2] for path in house.recorded()} == trained & wanted
    assert house.tidy(keep_days=0).removed == []


def test_weights_that_another_search_has_taken_over_and_needs_are_kept(house: House) -> None:
    first = house.search(uneven)
    unneeded = [
        t for t in house.lab.trials(first) if t.id not in needed(house.lab.search(first), house.lab.trials(first))
    ]
    second = house.search(uneven)
    reused = {t.reused_from: t for t in house.lab.trials(second) if t.status == "reused"}
    precious, other = unneeded[0], unneeded[1]
    with writing(house.lab.engine) as session:
        session.execute(update(Search).where(Search.id == second).values(best_trial_id=reused[precious.id].id))
    house.age(house.lab.trials(first), 365)
    house.tidy()
    assert precious.id in house.kept(first)
    assert other.id not in house.kept(first)


def failing(order: Order) -> Result | Failure:
    return Failure("error", "no") if order.phase == "explore" and order.number % 2 else uneven(order)


def test_checkpoints_go_with_their_purpose(house: House) -> None:
    search_id = house.search(failing)
    trials = house.lab.trials(search_id)
    failed = [t for t in trials if t.status == "failed"]
    done = next(t for t in trials if t.status == "succeeded")
    useless = house.leave(done, "epoch-000001-abc.safetensors")
    useful = {house.leave(t, "epoch-000001-abc.safetensors") for t in failed}
    begun = {house.leave(t, "epoch-000002-abc.safetensors.12ab.partial") for t in (done, failed[0])}
    assert set(house.tidy().removed) == {useless} | begun
    with writing(house.lab.engine) as session:  # its failed trials may be retried
        searches.reopen(session, search_id, retry_failed=True)
    house.age(failed, 365)
    house.tidy(storage_gb=1e-9, keep_days=0)
    assert useful <= {file.path for file in house.store.list("searches")}
    with writing(house.lab.engine) as session:
        searches.set_command(session, search_id, "cancel")
    house.age([t for t in house.lab.trials(search_id) if t.id in {f.id for f in failed}], 365)
    house.tidy()
    assert not useful & {file.path for file in house.store.list("searches")}


def test_a_trial_that_runs_keeps_its_checkpoints_whatever_the_quota(house: House) -> None:
    search_id = house.lab.submit(**SPEC)
    run = house.lab.start(house.lab.claim())
    order = run.next()
    assert isinstance(order, Order)
    run.ledger.flush()
    trial = house.lab.trials(search_id)[0]
    names = ("epoch-000001-abc.safetensors", "epoch-000002-abc.safetensors.12ab.partial")
    paths = [house.leave(trial, name) for name in names]  # the second is being written
    done = house.tidy(storage_gb=1e-9, keep_days=0)
    assert done.full
    assert [file.path for file in house.store.list("searches")] == paths


def test_a_deleted_search_leaves_nothing_behind_and_nothing_else_goes(house: House) -> None:
    first, second = house.search(uneven), house.search(uneven, training={"epochs": 3})  # they share no result
    logs = house.folder / "logs"
    logs.mkdir()
    for name in (f"search-{first}.log", f"search-{first}.1.log", f"search-{second}.log", "drivers.log", "search-x.log"):
        (logs / name).touch()
    strangers = [MARKER, "notes.txt", f"{uuid7()}/file", "searches/readme", f"searches/mine/{uuid7()}/file",
                 f"searches/{uuid7()}/file", f"searches/{second}/{uuid7()}/file"]  # fmt: skip
    for path in strangers[1:]:
        house.store.write(path, b"precious")
    before = {file.path for file in house.store.list() if first not in file.path}
    with writing(house.lab.engine) as session:
        searches.delete(session, first)
    assert house.tidy().searches == [first]
    assert {file.path for file in house.store.list()} == before
    assert set(strangers) <= before
    assert sorted(path.name for path in logs.iterdir()) == ["drivers.log", f"search-{second}.log", "search-x.log"]


def delete(house: House, search_id: str) -> None:
    with writing(house.lab.engine) as session:
        searches.delete(session, search_id)


def test_a_deleted_search_leaves_what_others_have_taken_over_until_the_last_of_them_goes(house: House) -> None:
    first, second, third = (house.search(uneven) for _ in range(3))
    sources = {t.id for t in house.lab.trials(first) if t.status == "succeeded"}
    assert {t.reused_from for t in house.lab.trials(second)} == sources
    files = {file.path for file in house.store.list("searches")}
    checkpoint = house.leave(house.lab.trials(first)[0], "epoch-000001-abc.safetensors")

    delete(house, first)
    assert house.tidy().removed == [checkpoint]
    assert {file.path for file in house.store.list("searches")} == files
    heirs = {t.id: t for t in house.lab.trials(second)}
    with reading(house.lab.engine) as session:
        owners = {artifact.path: artifact.trial_id for artifact in session.scalars(select(Artifact))}
    assert owners.keys() == files
    assert set(owners.values()) == heirs.keys()
    # what the third refers to is what has the files now, with the result that it has taken over
    for trial in house.lab.trials(third):
        assert trial.reused_from is not None
        assert heirs[trial.reused_from].architecture_key == trial.architecture_key

    fourth = house.search(uneven)  # it finds the results all the same, and whose files they are
    assert {t.reused_from for t in house.lab.trials(fourth)} == heirs.keys()
    for search_id in (second, third):
        delete(house, search_id)
        house.tidy()
        assert {file.path for file in house.store.list("searches")} == files
    delete(house, fourth)
    house.tidy()
    assert house.store.list("searches") == []
    assert house.recorded() == set()


def test_what_has_been_handed_down_is_kept_no_longer_than_what_a_search_has_trained_itself(house: House) -> None:
    first, second = house.search(uneven), house.search(uneven)
    delete(house, first)
    trials = house.lab.trials(second)
    house.age(trials, 365)
    house.tidy(keep_days=14)
    wanted = needed(house.lab.search(second), trials)
    with reading(house.lab.engine) as session:
        kept = {artifact.trial_id for artifact in session.scalars(select(Artifact))}
    assert 0 < len(kept) < len(trials)
    assert kept == wanted
    assert len(house.store.list("searches")) == len(wanted)


def test_a_search_that_reuses_its_own_results_leaves_nothing_behind(house: House) -> None:
    search_id = house.search(uneven)
    one, other, *_ = [t for t in house.lab.trials(search_id) if t.status == "succeeded"]
    with writing(house.lab.engine) as session:
        session.execute(update(Trial).where(Trial.id == other.id).values(reused_from=one.id))
    delete(house, search_id)
    assert house.tidy().searches == [search_id]
    assert house.store.list("searches") == []


def test_a_store_that_is_not_the_databases_is_not_touched(house: House) -> None:
    search_id = house.search(uneven)
    with writing(house.lab.engine) as session:
        searches.delete(session, search_id)
    before = house.store.list()
    janitor = house.janitor()
    house.store.write(MARKER, b'{"id": "another"}')
    with pytest.raises(StorageError, match="sees another store"):
        janitor.round()
    house.store.write(MARKER, f'{{"id": "{house.identity.id}"}}'.encode())
    with writing(house.lab.engine) as session:
        known = installation.get(session, SETTING)
        assert known is not None
        moved = {**StoreIdentity("elsewhere", uuid7()).to_json(), "by": "b:2"}
        assert installation.replace(session, SETTING, moved, since=known.updated_at)
    with pytest.raises(StorageError, match="not the database's store any more"):
        janitor.round()
    assert [file.path for file in house.store.list()] == [file.path for file in before]


def test_several_at_once_are_as_good_as_one(house: House) -> None:
    search_id = house.search(uneven)
    trials = house.lab.trials(search_id)
    gone = house.search(uneven, training={"epochs": 3})
    with writing(house.lab.engine) as session:
        searches.delete(session, gone)
    house.age(trials, 365)
    errors: list[Exception] = []

    def tidy() -> None:
        try:
            house.janitor(keep_days=1, storage_gb=1.0).round()
        except Exception as error:  # noqa: BLE001 - it is what the test is about
            errors.append(error)

    threads = [threading.Thread(target=tidy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    trained = {t.id for t in trials if t.status == "succeeded"}
    assert house.kept(search_id) == trained & needed(house.lab.search(search_id), trials)
    assert house.kept(gone) == set()


def test_its_thread_goes_on_after_trouble_and_forgets_old_keys(house: House) -> None:
    with writing(house.lab.engine) as session:
        idempotency.begin(session, "tests", "old", "0" * 64)
        session.execute(update(IdempotencyKey).values(expires_at=text("created_at")))
        idempotency.begin(session, "tests", "new", "0" * 64)
    marker = house.store.read(MARKER)
    house.store.remove(MARKER)
    janitor = house.janitor(janitor_seconds=0.05)
    with capture_logs() as logs:
        janitor.start()
        try:
            until(lambda: sum(line["event"] == "janitor.store_unusable" for line in logs) >= 2)
            assert keys(house) == {"old", "new"}
            house.store.write(MARKER, marker)
            until(lambda: keys(house) != {"old", "new"})
        finally:
            janitor.stop()
    assert keys(house) == {"new"}


def keys(house: House) -> set[str]:
    with reading(house.lab.engine) as session:
        return set(session.scalars(select(IdempotencyKey.key)))
