"""A database with finished searches, a store with their files, and janitors."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from db.engine import reading, writing
from db.models import Artifact, Search, Trial
from tests.workers.conftest import Lab, accuracy
from workers.janitor import Janitor, Tidied
from workers.orders import Failure, Order, Result
from workers.settings import WorkerSettings
from workers.storage.agreement import agree
from workers.storage.layout import trial_prefix
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


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
