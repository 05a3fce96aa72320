"""The columns kept between requests are those that a fresh read gives, whatever has happened in between."""

from __future__ import annotations

import numpy as np
import pytest
from fastapi.testclient import TestClient

from db import attempts, searches, trials
from db.engine import reading, writing
from db.models import Trial
from service.fronts import columns as module
from service.fronts.columns import Columns, columns
from tests.service.support import Driver, architecture, engine_of, submit

METRICS = ["top1", "macs"]


@pytest.fixture
def driver(any_client: TestClient) -> Driver:
    return Driver(engine_of(any_client), submit(any_client)["id"])


def looked(driver: Driver) -> Columns:
    with reading(driver.engine) as session:
        return columns(session, searches.get(session, driver.search_id), METRICS)


def fresh(driver: Driver) -> Columns:
    module._KEPT.clear()
    return looked(driver)


def same(one: Columns, other: Columns) -> bool:
    return (
        one.event == other.event
        and np.array_equal(one.numbers, other.numbers)
        and np.array_equal(one.values, other.values)
    )


def test_what_changes_between_looks_is_seen(driver: Driver) -> None:
    assert len(looked(driver).numbers) == 0
    driver.trial(architecture(), role="baseline", phase="controls", top1=0.8, macs=10)
    running = driver.trial(architecture(("se", {"reduction": 2})), status="running")
    assert looked(driver).numbers.tolist() == [1]
    driver.trial(architecture(("se", {"reduction": 4})), top1=0.9, macs=30)
    driver.trial(architecture(("se", {"reduction": 8})), status="failed")
    driver.trial(architecture(("cbam", {"reduction": 8})), phase="confirm", role="confirm", top1=0.9, macs=30)
    found = looked(driver)
    assert found.numbers.tolist() == [1, 3]
    assert found.values.tolist() == [[0.8, 10.0], [0.9, 30.0]]
    with writing(driver.engine) as session:
        trials.finish(session, running, driver.attempt, status="succeeded", metrics={"top1": 0.7})
    found = looked(driver)
    assert found.numbers.tolist() == [1, 2, 3]
    assert same(found, fresh(driver))


def test_nothing_new_is_nothing_read(driver: Driver) -> None:
    driver.trial(architecture(), top1=0.8, macs=10)
    assert looked(driver) is looked(driver)


def test_many_events_at_once_are_read_anew(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    looked(driver)
    monkeypatch.setattr(module, "MOST_CHANGES", 3)
    for ratio in (2, 4, 8):
        driver.trial(architecture(("se", {"reduction": ratio})), top1=0.8, macs=10)
    assert looked(driver).numbers.tolist() == [1, 2, 3]


def test_an_older_state_of_the_database_is_not_given_a_newer_one(driver: Driver) -> None:
    with reading(driver.engine) as session:
        before = searches.get(session, driver.search_id)
        if driver.engine.dialect.name == "sqlite":
            pytest.skip("a reader of SQLite without WAL would block the writer")
        driver.trial(architecture(), top1=0.8, macs=10)
        assert looked(driver).numbers.tolist() == [1]
        assert columns(session, before, METRICS).numbers.tolist() == []
    assert looked(driver).numbers.tolist() == [1]


def test_a_trial_that_is_tried_again_leaves(driver: Driver) -> None:
    trial = driver.trial(architecture(), top1=0.8, macs=10)
    assert len(looked(driver).numbers) == 1
    with writing(driver.engine) as session:
        attempts.restart(session, trial, driver.attempt, retries=1)
        assert session.get_one(Trial, trial).status == "running"
    assert len(looked(driver).numbers) == 0
