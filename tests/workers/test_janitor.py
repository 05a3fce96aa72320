"""What the janitor removes, what it must never touch, and that many of them are as good as one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update
from structlog.testing import capture_logs

from db import idempotency, installation, searches
from db.engine import now, reading, writing
from db.ids import uuid7
from db.models import Artifact, IdempotencyKey, Search, Setting, Trial
from tests.workers.conftest import Lab, accuracy
from workers.checkpoints import Checkpoints
from workers.janitor import Janitor, Tidied
from workers.orders import Failure, Order, Result
from workers.processes import ProcessName
from workers.settings import WorkerSettings
from workers.storage.agreement import SETTING, agree
from workers.storage.errors import StorageError
from workers.storage.identity import MARKER, StoreIdentity
from workers.storage.layout import QUOTA, trial_prefix
from workers.storage.limits import PREFIX
from workers.storage.store import Store, open_store

SIZE = 1000
SPEC: dict[str, Any] = {
    "space": {"modules": ["none", "se"], "reduction": [2, 4], "pattern": ["every", "last"]},
    "objectives": [{"metric": "top1"}, {"metric": "macs"}],
    "budget": {"trials": 12},
    "confirm": {"top": 1, "seeds": 2, "baseline_seeds": 2},
}


class House:
    """A database with finished searches and a store with their files."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.store: Store = open_store(str(folder / "storage"))
        self.identity = agree(lab.engine, self.store.url, "tests:1")

    def search(self, answer: Callable[[Order], Result | Failure] = accuracy, **spec: Any) -> str:
        """A search that has run to its end; its trained trials have their weights in the store."""
        search_id = self.lab.submit(**{**SPEC, **spec})
        run = self.lab.start(self.lab.claim())
        self.lab.work(run, answer)
        self.lab.finish(run)
        for trial in self.lab.trials(search_id):
            if trial.status == "succeeded":
                self.leave(trial, "weights.safetensors", record=True)
        return search_id

    def leave(self, trial: Trial, name: str, *, record: bool = False) -> str:
        path = f"{trial_prefix(trial.search_id, trial.id)}/{name}"
        self.store.write(path, b"x" * SIZE)
        if record:
            with writing(self.lab.engine) as session:
                session.add(Artifact(trial_id=trial.id, kind="weights", path=path, bytes=SIZE, sha256="0" * 64))
        return path

    def age(self, trials: list[Trial], days: float) -> None:
        """As if they had ended that long ago."""
        with writing(self.lab.engine) as session:
            for trial in trials:
                assert trial.finished_at is not None
                moved = trial.finished_at - timedelta(days=days)
                session.execute(update(Trial).where(Trial.id == trial.id).values(finished_at=moved))

    def janitor(self, owner: str = "one", **settings: Any) -> Janitor:
        return Janitor(self.lab.engine, WorkerSettings(home=self.folder, **settings), self.identity, owner)

    def tidy(self, **settings: Any) -> Tidied:
        done = self.janitor(**settings).round()
        assert done.bytes == sum(file.bytes for file in self.store.list("searches"))
        return done

    def kept(self, search_id: str) -> set[str]:
        """Ids of trials that have files."""
        return {file.path.split("/")[2] for file in self.store.list(f"searches/{search_id}")}

    def recorded(self) -> set[str]:
        with reading(self.lab.engine) as session:
            return set(session.scalars(select(Artifact.path)))


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> House:
    return House(lab, tmp_path)


def needed(search: Search, trials: list[Trial]) -> set[str]:
    """Best, front, baseline and confirmed: brute force over pairs."""
    done = [t for t in trials if t.status in ("succeeded", "reused")]

    def beaten(one: Trial) -> bool:
        assert one.top1 is not None
        assert one.macs is not None
        return any(
            o.top1 >= one.top1 and o.macs <= one.macs and (o.top1, o.macs) != (one.top1, one.macs)  # type: ignore[operator]
            for o in done
        )

    front = {t.id for t in done if not beaten(t)}
    named = {t.id for t in done if t.role == "baseline" or t.phase == "confirm" or t.id == search.best_trial_id}
    return front | named


def uneven(order: Order) -> Result:
    """An accuracy that has little to do with cost, so that the front is a part of the trials."""
    top1 = 0.5 + int(order.architecture.key[:4], 16) / 2**18
    return Result({"top1": top1, "top5": 0.9, "loss": 1.0 - top1}, order.epochs, 1.0, {})


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


def test_a_quota_takes_the_oldest_of_what_nobody_needs_and_no_more_than_it_must(house: House) -> None:
    search_id = house.search(uneven)
    trials = house.lab.trials(search_id)
    wanted = needed(house.lab.search(search_id), trials)
    spare = [t for t in trials if t.status == "succeeded" and t.id not in wanted]
    assert len(spare) >= 3
    for years, trial in enumerate(reversed(spare), start=1):
        house.age([trial], 365 * years)
    total = len(house.store.list("searches")) * SIZE
    done = house.tidy(storage_gb=(total - SIZE - 1) / 1e9, keep_days=10_000)
    assert not done.full
    assert [path.split("/")[2] for path in done.removed] == [spare[0].id, spare[1].id]


def test_when_nothing_more_may_go_checkpoints_are_refused_until_there_is_room(house: House) -> None:
    search_id = house.search(uneven)
    trials = house.lab.trials(search_id)
    wanted = needed(house.lab.search(search_id), trials) & {t.id for t in trials if t.status == "succeeded"}
    done = house.tidy(storage_gb=SIZE / 1e9)
    assert done.full
    assert house.kept(search_id) == wanted

    class Session:
        epoch = 1

        def state(self) -> dict[str, Any]:
            return {"epoch": 1}

    checkpoints = Checkpoints(house.store, trial_prefix(search_id, uuid7()), "key")
    with pytest.raises(StorageError, match="over its quota of 1e-06 GB"):
        checkpoints.write(Session(), [])  # type: ignore[arg-type]
    assert not house.tidy(storage_gb=1.0).full
    assert checkpoints.write(Session(), [])["epoch"] == 1  # type: ignore[arg-type]
    house.tidy(storage_gb=SIZE / 1e9)
    assert house.store.exists(QUOTA)
    house.tidy()  # no quota any more
    assert not house.store.exists(QUOTA)
    assert Checkpoints(house.store, trial_prefix(search_id, uuid7()), "key").write(Session(), [])  # type: ignore[arg-type]


def test_of_dispatchers_with_different_limits_the_strictest_count_for_all_and_both_values_are_told(
    house: House,
) -> None:
    search_id = house.search(uneven)
    trials = house.lab.trials(search_id)
    wanted = needed(house.lab.search(search_id), trials) & {t.id for t in trials if t.status == "succeeded"}
    strict, lenient = house.janitor("strict", storage_gb=SIZE / 1e9), house.janitor("lenient", storage_gb=1.0)
    unlimited = house.janitor("unlimited", keep_days=1)
    strict.round()
    said = house.store.read(QUOTA)
    with capture_logs() as logs:
        for janitor in (lenient, unlimited, lenient, unlimited):
            assert janitor.round().full
            assert json.loads(house.store.read(QUOTA))["limit"] == json.loads(said)["limit"] == SIZE
    assert house.kept(search_id) == wanted
    differing = [line for line in logs if line["event"] == "storage.settings_differ"]
    assert [(line["setting"], line["here"], line["counts"], line["set_by"]) for line in differing] == [
        ("ATTUNE_STORAGE_GB", 1.0, 1e-6, "strict"),
        ("ATTUNE_STORAGE_GB", None, 1e-6, "strict"),
        ("ATTUNE_KEEP_DAYS", 14.0, 1.0, "unlimited"),
        ("ATTUNE_STORAGE_GB", 1.0, 1e-6, "strict"),
    ]


def test_the_limits_of_a_dispatcher_that_has_ended_do_not_count_any_more(house: House) -> None:
    house.search(uneven)
    ended = replace(ProcessName.own(), pid=2**22 + 1)  # beyond what Linux gives to any process
    left = house.janitor("left", storage_gb=SIZE / 1e9, janitor_seconds=0.05)
    for strict in (
        house.janitor(f"{ended}@cluster", storage_gb=SIZE / 1e9),
        house.janitor("lost", storage_gb=SIZE / 1e9),
    ):
        assert strict.round().full
    with writing(house.lab.engine) as session:
        past = now(session) - timedelta(hours=1)
        lost = next(row for row in installation.starting_with(session, PREFIX) if row.value["owner"] == "lost")
        session.execute(update(Setting).where(Setting.key == lost.key).values(updated_at=past))
    left.start()
    until(lambda: "left" in owners(house))
    assert house.janitor("new").round().full
    left.stop()
    until(lambda: "left" not in owners(house))
    assert not house.janitor("new").round().full
    assert not house.store.exists(QUOTA)
    assert owners(house) == {"new"}


def owners(house: House) -> set[str]:
    with reading(house.lab.engine) as session:
        return {row.value["owner"] for row in installation.starting_with(session, PREFIX)}


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_store_that_is_nearly_full_is_looked_at_more_often(house: House) -> None:
    house.search(uneven)
    total = len(house.store.list("searches")) * SIZE
    for gigabytes, pause in ((None, 300.0), (2 * total / 1e9, 300.0), (1.05 * total / 1e9, 15.0)):
        janitor = house.janitor(storage_gb=gigabytes)
        assert janitor._pause(janitor.round()) == pause


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
