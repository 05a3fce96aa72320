"""Rows to begin a test with."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from db import claims, searches, trials
from db.engine import writing
from db.models import Search, Trial


@pytest.fixture
def queued(engine: Engine) -> Callable[..., Search]:
    """Makes a queued search."""

    def make(name: str = "search", **options: object) -> Search:
        with writing(engine) as session:
            return searches.create(session, name=name, spec={"name": name}, spec_version=1, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def running(engine: Engine, queued: Callable[..., Search]) -> Search:
    """A search that attempt 1 holds."""
    queued()
    with writing(engine) as session:
        search = claims.claim_next(session, "driver", 60.0)
    assert search is not None
    return search


@pytest.fixture
def trial(engine: Engine, running: Search) -> Callable[..., Trial]:
    """Starts a trial of the running search; its architecture's key is that of the seed by default."""

    def make(key: str = "a", seed: int = 0, phase: str = "explore") -> Trial:
        with writing(engine) as session:
            trials.put_architecture(session, key, backbone="resnet8", document={}, label=key)
            return trials.add(
                session, running.id, 1, phase=phase, architecture_key=key, seed=seed, role="explore", epochs_planned=3
            )  # fmt: skip

    return make
