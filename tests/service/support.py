"""The service over a given database, and the rows that workers would write into it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from db import attempts, catalog, claims, events, searches, trials
from db.catalog import PublishedDataset
from db.engine import writing
from search.architecture import Architecture, Backbone, Module
from search.datasets import DatasetEntry, DatasetOption
from search.describe import describe
from search.sites import Site
from service.app import create_app
from service.settings import ServiceSettings

DIGITS = DatasetEntry(
    name="digits",
    title="Handwritten digits",
    source="scikit-learn",
    input_shape=(1, 8, 8),
    classes=10,
    train_size=1200,
    validation_size=300,
    test_size=297,
    fingerprint="d" * 64,
    options=(DatasetOption(name="seed", type="int", default=0, minimum=0, maximum=1000, doc="Seed of the splits."),),
)
SPEC: dict[str, Any] = {
    "name": "where",
    "dataset": {"name": "digits"},
    "backbone": {"name": "resnet8", "width": 8},
    "budget": {"trials": 8},
}
BACKBONE = Backbone.make("resnet8", width=8)
NAN = {"kind": "nan_loss", "message": "the loss is NaN", "traceback": "the traceback"}


@contextmanager
def opened(url: str, *, publish: bool = True, **settings: Any) -> Iterator[TestClient]:
    """A client of an application on the database `url`."""
    app = create_app(ServiceSettings(database_url=url, event_poll_seconds=0.02, **settings))
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
        if publish:
            publish_digits(engine_of(client))
        yield client


def engine_of(client: TestClient) -> Engine:
    engine = client.app.state.service.engine  # type: ignore[attr-defined]
    assert isinstance(engine, Engine)
    return engine


def publish_digits(engine: Engine) -> None:
    entry = PublishedDataset(DIGITS.name, DIGITS.fingerprint, DIGITS.model_dump(mode="json"))
    with writing(engine) as session:
        catalog.publish_datasets(session, [entry], published_by="test")


def architecture(*modules: tuple[str, dict[str, Any]], stage: int = 3) -> Architecture:
    """The small backbone with these modules stacked in one block of a stage."""
    placed = [Module.make(kind, **options) for kind, options in modules]
    return Architecture.make(BACKBONE, {Site(stage, 1, "residual"): placed})


class Driver:
    """Writes what a driver would write, through the functions that it uses."""

    def __init__(self, engine: Engine, search_id: str) -> None:
        self.engine = engine
        self.search_id = search_id
        with writing(engine) as session:
            claimed = claims.claim_next(session, "driver", 600.0)
            assert claimed is not None
            assert claimed.id == search_id
            self.attempt = claimed.attempt

    def trial(
        self, found: Architecture, *, role: str = "explore", phase: str = "explore", seed: int = 0,
        status: str = "succeeded", params: int = 1000, macs: int = 10_000, epochs: int = 2, seconds: float = 2.0,
        busy_seconds: float | None = None, error: dict[str, Any] = NAN, **metrics: float,
    ) -> str:  # fmt: skip
        """A trial with its epochs, finished unless its status is `running`."""
        with writing(self.engine) as session:
            label = describe(found)
            document = found.to_json()
            trials.put_architecture(session, found.key, backbone=found.backbone.name, document=document, label=label)
            row = trials.add(
                session, self.search_id, self.attempt, phase=phase, architecture_key=found.key, seed=seed, role=role,
                epochs_planned=epochs, label=label, params=params, macs=macs,
            )  # fmt: skip
            for epoch in range(1, epochs + 1):
                shown = {"top1": metrics.get("top1", 0.5) * epoch / epochs, "train_loss": 1 / epoch}
                trials.record_epoch(session, row.id, self.attempt, epoch=epoch, metrics=shown)
            if status != "running":
                trials.finish(
                    session, row.id, self.attempt, status=status, metrics=metrics, epochs=epochs, seconds=seconds,
                    busy_seconds=busy_seconds, error=error if status == "failed" else None,
                )  # fmt: skip
            return row.id

    def progress(self, **values: Any) -> None:
        with writing(self.engine) as session:
            assert searches.set_progress(session, self.search_id, self.attempt, **values)

    def beat(self, *, active_seconds: float, seconds_left: float | None) -> None:
        with writing(self.engine) as session:
            assert claims.renew(
                session, self.search_id, self.attempt, 600.0, active_seconds=active_seconds, seconds_left=seconds_left
            )

    def retry(self, trial_id: str, kind: str, times: int = 1, busy_seconds: float = 3.0) -> None:
        """A running trial fails and is started again."""
        with writing(self.engine) as session:
            for count in range(1, times + 1):
                error = {"kind": kind, "message": "again"}
                attempts.retry(
                    session, trial_id, self.attempt, retried={kind: count}, busy_seconds=busy_seconds, error=error
                )

    def place(self, trial_id: str, node: str) -> None:
        with writing(self.engine) as session:
            attempts.place(session, self.search_id, self.attempt, trial_id, node)

    def note(self, kind: str, **data: Any) -> None:
        with writing(self.engine) as session:
            events.append(session, self.search_id, kind, data)

    def die(self) -> None:
        """Its dispatcher notices that the process has ended without a word."""
        with writing(self.engine) as session:
            assert claims.release(session, self.search_id, self.attempt, "queued", died=True)

    def end(self, status: str = "succeeded") -> None:
        with writing(self.engine) as session:
            assert claims.release(session, self.search_id, self.attempt, status)


def submit(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/searches", json=SPEC | changes)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert isinstance(body, dict)
    return body


@contextmanager
def served(settings: ServiceSettings, port: int = 0) -> Iterator[str]:
    """The address of a real server in a thread of this process. port: 0 for any that is free."""
    config = uvicorn.Config(
        create_app(settings),
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns as soon as `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
