"""A realistic search written straight into a database, as a driver would: for pages and commands without training.

Also a small program, to look at the pages: python -m tests.service.filling HOME
"""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from db import catalog, claims, searches, trials
from db.catalog import PublishedDataset
from db.engine import make_engine, reading, writing
from db.upgrades import upgrade
from search.architecture import Architecture
from search.cost import CostTable, MemoryStore
from search.datasets import DatasetEntry, DatasetOption
from search.describe import describe
from search.pareto import Bounds
from search.plan import SearchPlan, make_plan
from search.space_cost import SpaceCosts
from search.spec import SearchSpec

CLUTTERED = DatasetEntry(
    name="cluttered-digits",
    title="Digits among clutter",
    source="scikit-learn",
    input_shape=(1, 32, 32),
    classes=10,
    train_size=1200,
    validation_size=300,
    test_size=297,
    fingerprint="c" * 64,
    options=(
        DatasetOption(name="canvas", type="int", default=32, minimum=16, maximum=96, doc="Side.", sets="image_size"),
    ),
)
REQUEST: dict[str, Any] = {
    "name": "where does attention pay",
    "dataset": {"name": "cluttered-digits"},
    "backbone": {"name": "resnet14", "width": 8},
    "space": {"modules": ["none", "se", "cbam", ["se", "cbam"]], "reduction": [2, 4, 8], "pattern": ["every", "last"]},
    "budget": {"trials": 24},
    "tags": ["demo"],
}
STORE = MemoryStore()
WORTH = {"se": 0.004, "cbam": 0.006, "bam": 0.003}


class FilledSearch:
    """One search with a driver that writes what it is told to. Architectures come from the request's own space."""

    def __init__(self, engine: Engine, **changes: Any) -> None:
        self.engine = engine
        entry = PublishedDataset(CLUTTERED.name, CLUTTERED.fingerprint, CLUTTERED.model_dump(mode="json"))
        self.plan: SearchPlan = make_plan(SearchSpec.parse(REQUEST | changes), {CLUTTERED.name: CLUTTERED})
        self.table = CostTable(self.plan.backbone, self.plan.task, STORE)
        self.bounds: Bounds = self.plan.bounds(SpaceCosts(self.plan.space, self.table))
        spec = self.plan.spec
        with writing(engine) as session:
            catalog.publish_datasets(session, [entry], published_by="tests")
            self.id = searches.create(
                session, name=spec.name, spec=self.plan.resolved(), spec_version=1, tags=spec.tags, owner=spec.owner
            ).id
        self.values: list[tuple[float, int]] = []
        self.best: tuple[float, str] | None = None
        self.rng = np.random.default_rng(7)
        self.attempt = 0

    def on(self, engine: Engine) -> FilledSearch:
        """The same search in a copy of the database."""
        twin = copy.copy(self)
        twin.engine, twin.values, twin.rng = engine, list(self.values), np.random.default_rng(11)
        return twin

    def claim(self) -> FilledSearch:
        """Starts it, as a driver's first act."""
        with writing(self.engine) as session:
            found = claims.claim_next(session, "tests", 600.0)
            assert found is not None
            assert found.id == self.id
            self.attempt = found.attempt
            searches.set_progress(
                session, self.id, self.attempt, phase="controls", bounds={"objectives": self.bounds.to_json()}
            )
        return self

    def controls(self) -> FilledSearch:
        """Baseline and published placements, finished."""
        for role, architecture in self.plan.controls:
            self.trial(architecture, role=role, phase="controls")
        return self

    def explore(self, count: int) -> FilledSearch:
        """Random architectures of the space, finished."""
        while count:
            architecture = self.plan.space.architecture(self.plan.space.sample(self.rng))
            if not architecture.is_baseline:
                count -= self.trial(architecture) is not None
        return self

    def trial(
        self, architecture: Architecture, *, role: str = "explore", phase: str = "explore", status: str = "succeeded",
        top1: float | None = None,
    ) -> str | None:  # fmt: skip
        """A trial; None when there was one of this architecture already."""
        cost = self.table.architecture(architecture)
        top1 = self._accuracy(architecture) if top1 is None else top1
        with writing(self.engine) as session:
            label = describe(architecture)
            trials.put_architecture(
                session, architecture.key, backbone="resnet14", document=architecture.to_json(), label=label
            )
            row = trials.add(
                session, self.id, self.attempt, phase=phase, architecture_key=architecture.key, seed=0, role=role,
                epochs_planned=8, label=label, params=cost.params, macs=cost.macs,
            )  # fmt: skip
            if row.status != "running":
                return None
            if status == "running":
                trials.record_epoch(session, row.id, self.attempt, epoch=3, metrics={"top1": top1 / 2})
                return row.id
            self._finish(session, row.id, status, top1)
        if status == "succeeded":
            self._note(row.id, top1, cost.macs)
        return row.id

    def finish_running(self, trial_id: str, top1: float, macs: int) -> None:
        """Ends a trial that runs, with a result."""
        with writing(self.engine) as session:
            self._finish(session, trial_id, "succeeded", top1)
        self._note(trial_id, top1, macs)

    def confirm(self, top: int = 2, seeds: int = 4) -> FilledSearch:
        """The best explored placements and the baseline again with other seeds, on the test split."""
        with reading(self.engine) as session:
            best = trials.page(session, self.id, phase="explore", sort="top1", descending=True, limit=top).items
            base = trials.page(session, self.id, role="baseline", limit=1).items
        for seed in range(1, seeds + 1):
            for trial in (*base, *best):
                with writing(self.engine) as session:
                    row = trials.add(
                        session, self.id, self.attempt, phase="confirm", architecture_key=trial.architecture_key,
                        seed=seed, role="confirm", epochs_planned=8, label=trial.label, params=trial.params,
                        macs=trial.macs,
                    )  # fmt: skip
                    top1 = (trial.top1 or 0.0) + float(self.rng.normal(-0.002, 0.003))
                    metrics = {"top1": top1, "test_top1": top1 - 0.001}
                    trials.finish(session, row.id, self.attempt, status="succeeded", metrics=metrics, epochs=8)
        return self

    def end(self, status: str = "succeeded", error: dict[str, Any] | None = None) -> FilledSearch:
        with writing(self.engine) as session:
            assert claims.release(session, self.id, self.attempt, status, error=error)
        return self

    def _finish(self, session: Any, trial_id: str, status: str, top1: float) -> None:
        metrics = {"top1": top1, "top5": min(1.0, top1 + 0.06), "loss": 1.1 - top1} if status == "succeeded" else {}
        error = {"kind": "nan_loss", "message": "The loss became NaN in epoch 3.", "traceback": "…"}
        for epoch in range(1, 9 if metrics else 3):
            share = 1 - 0.6**epoch
            seen = {"top1": 0.1 + (top1 - 0.1) * share, "train_loss": 2.3 - 2.2 * share, "val_loss": 2.3 - 2.1 * share}
            trials.record_epoch(session, trial_id, self.attempt, epoch=epoch, metrics=seen)
        trials.finish(
            session, trial_id, self.attempt, status=status, metrics=metrics, epochs=8 if metrics else 3,
            seconds=11.0 + 4 * float(self.rng.random()), error=error if status == "failed" else None,
        )  # fmt: skip

    def _note(self, trial_id: str, top1: float, macs: int) -> None:
        self.values.append((top1, macs))
        if self.best is None or top1 > self.best[0]:
            self.best = (top1, trial_id)
        with writing(self.engine) as session:
            assert searches.set_progress(
                session, self.id, self.attempt, phase="explore", hypervolume=self.bounds.hypervolume(self.values),
                best_trial_id=self.best[1],
            )  # fmt: skip

    def _accuracy(self, architecture: Architecture) -> float:
        """Late stages pay most, and seeds scatter by half a point."""
        gain = sum(
            WORTH[m.kind] * site.stage / 3 / max(1, len(mods)) for site, mods in architecture.placements for m in mods
        )
        return round(float(np.clip(0.921 + gain + self.rng.normal(0, 0.004), 0, 1)), 4)


def fill(engine: Engine, names: Sequence[str] = ()) -> list[str]:
    """Searches in every state, the newest running; their ids."""
    large = {"modules": ["none", "se", "cbam", "bam"], "reduction": [2, 8], "pattern": ["every", "last"]}
    found = [FilledSearch(engine).claim().controls().explore(24).end()]
    confirmed = FilledSearch(engine, name="se, cbam or bam, confirmed", space=large, budget={"trials": 120})
    found.append(confirmed.claim().controls().explore(120).confirm().end())
    failed = FilledSearch(engine, name="a learning rate that is too high").claim()
    failed.trial(failed.plan.controls[0][1], role="baseline", phase="controls", status="failed")
    found.append(
        failed.end("failed", {"kind": "trials_failed", "message": "The first five trials failed: the loss became NaN."})
    )
    for name in names:
        found.append(FilledSearch(engine, name=name).claim().controls().end("cancelled"))
    running = (
        FilledSearch(engine, name="se and cbam, late stages", owner="mira", tags=["vision", "q3"])
        .claim()
        .controls()
        .explore(9)
    )
    space = running.plan.space
    running.trial(space.architecture(space.sample(np.random.default_rng(3))), status="running")
    running.trial(space.architecture(space.sample(np.random.default_rng(5))), status="failed")
    found.append(running)
    return [search.id for search in found]


@dataclass(frozen=True)
class Template:
    """A database with three searches, to copy for each test: writing it takes longer than most tests."""

    path: Path
    finished: FilledSearch
    running: FilledSearch
    queued: FilledSearch

    @classmethod
    def make(cls, path: Path) -> Template:
        """path: a migrated database without rows."""
        engine = make_engine(f"sqlite:///{path}")
        finished = FilledSearch(engine).claim().controls().explore(5).end()
        running = FilledSearch(engine, name="<script>alert(1)</script>").claim().controls()
        queued = FilledSearch(engine, name="not yet")
        engine.dispose()
        return cls(path, finished, running, queued)

    def copied(self, path: Path) -> Template:
        shutil.copy(self.path, path)
        engine = make_engine(f"sqlite:///{path}")
        return Template(path, self.finished.on(engine), self.running.on(engine), self.queued.on(engine))

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def close(self) -> None:
        self.finished.engine.dispose()


if __name__ == "__main__":
    engine = make_engine(f"sqlite:///{sys.argv[1]}/attune.db")
    upgrade(engine)
    fill(engine, ["<script>alert(1)</script>"])
