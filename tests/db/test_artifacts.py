"""Rows of files: one for each kind and trial, written by who holds the search, gone with it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from db import artifacts, claims, searches, trials
from db.engine import reading, writing
from db.errors import Fenced, NotFound
from db.ids import uuid7

DIGEST = "a" * 64


@pytest.fixture
def trial(engine: Engine) -> tuple[str, str, int]:
    """(search, trial, attempt) of a running search."""
    with writing(engine) as session:
        search_id = searches.create(session, name="s", spec={}, spec_version=1).id
        claimed = claims.claim_next(session, "tests", 60.0)
        assert claimed is not None
        trials.put_architecture(session, "k" * 64, backbone="resnet8", document={}, label="")
        added = trials.add(
            session, search_id, claimed.attempt, phase="explore", architecture_key="k" * 64, seed=0, role="explore",
            epochs_planned=1,
        )  # fmt: skip
        return search_id, added.id, claimed.attempt


def test_a_file_is_recorded_once_for_each_kind_and_found_by_trial_and_search(
    engine: Engine, trial: tuple[str, str, int]
) -> None:
    search_id, trial_id, attempt = trial
    with writing(engine) as session:
        assert not artifacts.any_known(session)
        artifacts.add(session, trial_id, attempt, kind="weights", path="searches/a", bytes=1, sha256=DIGEST)
        second = artifacts.add(
            session, trial_id, attempt, kind="weights", path="searches/b", bytes=2**40, sha256="b" * 64
        )
        artifacts.add(session, trial_id, attempt, kind="picture", path="searches/c", bytes=0, sha256=DIGEST)
    with reading(engine) as session:
        found = artifacts.of_trial(session, trial_id)
        assert [(one.kind, one.path, one.bytes) for one in found] == [
            ("picture", "searches/c", 0), ("weights", "searches/b", 2**40)
        ]  # fmt: skip
        assert {one.id for one in artifacts.of_search(session, search_id)} == {one.id for one in found}
        assert artifacts.of_search(session, uuid7()) == artifacts.of_trial(session, uuid7()) == []
        assert artifacts.any_known(session)
    with writing(engine) as session:
        assert artifacts.remove(session, [second.id, uuid7()]) == 1
        assert artifacts.remove(session, []) == 0
        assert [one.kind for one in artifacts.of_trial(session, trial_id)] == ["picture"]


def test_only_who_holds_the_search_records_files(engine: Engine, trial: tuple[str, str, int]) -> None:
    search_id, trial_id, attempt = trial
    with pytest.raises(Fenced), writing(engine) as session:
        artifacts.add(session, trial_id, attempt + 1, kind="weights", path="p", bytes=1, sha256=DIGEST)
    with pytest.raises(NotFound), writing(engine) as session:
        artifacts.add(session, uuid7(), attempt, kind="weights", path="p", bytes=1, sha256=DIGEST)
    with pytest.raises(ValueError, match=r"artifacts\.path: 1001 characters"), writing(engine) as session:
        artifacts.add(session, trial_id, attempt, kind="weights", path="p" * 1001, bytes=1, sha256=DIGEST)
    with writing(engine) as session:
        artifacts.add(session, trial_id, attempt, kind="weights", path="p", bytes=1, sha256=DIGEST)
        claims.release(session, search_id, attempt, "succeeded")
        searches.delete(session, search_id)
        assert not artifacts.any_known(session)
