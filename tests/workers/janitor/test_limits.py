"""How large the store may get: what goes then, what is refused, and whose limit counts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from db import installation
from db.engine import now, reading, writing
from db.ids import uuid7
from db.models import Setting
from tests.workers.janitor.conftest import SIZE, House, needed, uneven, until
from workers.checkpoints import Checkpoints
from workers.processes import ProcessName
from workers.storage.errors import StorageError
from workers.storage.layout import QUOTA, trial_prefix
from workers.storage.limits import PREFIX


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


def test_a_store_that_is_nearly_full_is_looked_at_more_often(house: House) -> None:
    house.search(uneven)
    total = len(house.store.list("searches")) * SIZE
    for gigabytes, pause in ((None, 300.0), (2 * total / 1e9, 300.0), (1.05 * total / 1e9, 15.0)):
        janitor = house.janitor(storage_gb=gigabytes)
        assert janitor._pause(janitor.round()) == pause
