"""What a dispatcher tells the service of data sets, as they come, change and go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db import catalog
from db.engine import reading
from search.datasets import unavailable_datasets
from tests.workers.datasets.conftest import write_images
from workers.publishing import Housekeeping, NodePublisher
from workers.settings import WorkerSettings


def test_data_sets_come_change_and_go_while_the_dispatcher_runs(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTUNE_HOME", str(tmp_path))
    monkeypatch.setenv("ATTUNE_DATA", str(tmp_path / "data"))
    nodes = NodePublisher(engine, "host:1", "cluster", "n1")
    housekeeping = Housekeeping(engine, WorkerSettings(), "host", nodes)

    def told() -> tuple[dict[str, str], dict[str, str]]:
        """Fingerprints of what can be used, reasons of what cannot."""
        housekeeping.round()
        nodes.publish(
            [{"id": "n1", "host": "host", "cluster": "cluster"}, {"id": "n2", "host": "b", "cluster": "cluster"}]
        )
        with reading(engine) as session:
            documents = [node.document for node in catalog.nodes(session)]
            ready = {row.name: row.fingerprint for row in catalog.datasets(session)}
        return ready, {name: one.reason for name, one in unavailable_datasets(documents).items()}

    ready, rest = told()
    assert {"digits", "cluttered-digits"} <= set(ready)  # and those of plug-ins that other tests have loaded
    assert "pets" not in ready
    assert set(rest) == {"cifar10", "cifar100", "imagenet"}
    write_images(tmp_path / "data" / "pets", {"a": 30, "b": 30}, size=(8, 8))
    first = told()[0]["pets"]
    assert told()[0]["pets"] == first
    write_images(tmp_path / "data" / "pets", {"c": 30}, size=(8, 8), seed=9_000)
    assert told()[0]["pets"] != first
    (tmp_path / "data" / "pets" / "d").mkdir()
    ready, rest = told()
    assert "pets" not in ready
    assert "no image" in rest["pets"]
    shutil.rmtree(tmp_path / "data" / "pets")
    ready, rest = told()
    assert "pets" not in {**ready, **rest}


def test_a_data_set_that_has_grown_by_much_is_as_it_was_until_it_is_read(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTUNE_HOME", str(tmp_path))
    monkeypatch.setenv("ATTUNE_DATA", str(tmp_path / "data"))
    nodes = NodePublisher(engine, "host:1", "cluster", "n1")
    write_images(tmp_path / "data" / "pets", {"a": 30, "b": 30}, size=(8, 8))
    housekeeping = Housekeeping(engine, WorkerSettings(), "host", nodes)

    def fingerprint() -> str | None:
        with reading(engine) as session:
            return {row.name: row.fingerprint for row in catalog.datasets(session)}.get("pets")

    housekeeping.round(most=10)
    assert fingerprint() is None
    housekeeping.round()
    before = fingerprint()
    assert before is not None
    write_images(tmp_path / "data" / "pets", {"c": 30}, size=(8, 8), seed=9_000)
    Housekeeping(engine, WorkerSettings(), "host", nodes).round(most=10)  # the dispatcher has been started again
    assert fingerprint() == before
    assert {one["name"] for one in nodes.unavailable_datasets if one["unread"]} == {"pets"}
    housekeeping.round()
    assert fingerprint() not in (None, before)
