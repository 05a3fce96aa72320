"""What the service shows beside the plain rows."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from db import claims, evaluations, searches, trials, views
from db.engine import reading, writing

DAY = 86_400.0


def trained(engine: Engine, search_id: str, attempt: int, key: str, backbone: str, seconds: float, epochs: int) -> str:
    """A finished trial whose result is also an evaluation."""
    with writing(engine) as session:
        trials.put_architecture(session, key, backbone=backbone, document={}, label=key)
        row = trials.add(
            session, search_id, attempt, phase="explore", architecture_key=key, seed=0, role="explore",
            epochs_planned=epochs, evaluation_key=key,
        )  # fmt: skip
        evaluations.claim(
            session, key, search_id=search_id, lease_seconds=DAY, architecture_key=key, dataset_fingerprint="d",
            conditions={}, epochs=epochs, seed=0,
        )  # fmt: skip
        trials.finish(
            session, row.id, attempt, status="succeeded", metrics={"test_top1": 0.5}, epochs=epochs, seconds=seconds
        )
        evaluations.finish(session, key, search_id=search_id, trial_id=row.id, results={})
        return row.id


def test_pace_means_and_runs(engine: Engine) -> None:
    with writing(engine) as session:
        found = searches.create(session, name="x", spec={}, spec_version=1).id
        claimed = claims.claim_next(session, "driver", DAY)
        assert claimed is not None
    with reading(engine) as session:
        assert views.pace(session, backbone="resnet14", dataset_fingerprint="d") is None
    ids = [
        trained(engine, found, claimed.attempt, "a", "resnet14", 8.0, 4),
        trained(engine, found, claimed.attempt, "b", "resnet14", 8.0, 2),
        trained(engine, found, claimed.attempt, "c", "resnet50", 80.0, 1),
    ]
    with reading(engine) as session:
        pace = views.pace(session, backbone="resnet14", dataset_fingerprint="d")
        latest = views.pace(session, backbone="resnet14", dataset_fingerprint="d", latest=1)
        assert (pace, latest) == (views.Pace(pytest.approx(3.0), 2), views.Pace(pytest.approx(4.0), 1))
        assert views.pace(session, backbone="resnet14", dataset_fingerprint="other") is None
        assert views.trials_by_id(session, [*ids, "unknown"]).keys() == set(ids)
        assert views.runs_of(session, found, ["a", "c"]) == [
            views.Run("a", "explore", 0, 0.5), views.Run("c", "explore", 0, 0.5),
        ]  # fmt: skip
        assert views.runs_of(session, found, []) == []
