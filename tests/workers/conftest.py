"""A search over a data set that only the tests have, and a stand-in for the cluster: results from a formula."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db import catalog, claims, searches, trials
from db.catalog import PublishedDataset
from db.engine import reading, writing
from db.errors import DatabaseError
from db.models import Search, Trial
from search.cost import CostTable
from search.datasets import DatasetEntry
from search.plan import make_plan
from search.space_cost import SpaceCosts
from search.spec import SearchSpec
from workers.agenda import Next
from workers.budget import ActiveTime
from workers.costs import SqlCostStore
from workers.ledger import Ledger
from workers.orders import Failure, Order, Result
from workers.run import SearchRun
from workers.stopping import Limits

ENTRY = DatasetEntry(
    name="tiny", title="Tiny", source="tests", input_shape=(1, 8, 8), classes=10, train_size=10, validation_size=10,
    test_size=10, fingerprint="f" * 64,
)  # fmt: skip

Answer = Callable[[Order], Result | Failure]


def accuracy(order: Order) -> Result | Failure:
    """More attention is better, a little; the seed moves it."""
    top1 = 0.5 + 0.01 * len(order.architecture.placements) + 0.001 * order.seed
    metrics = {"top1": top1, "top5": 0.9, "loss": 1.0 - top1}
    if order.phase == "confirm":
        metrics["test_top1"] = top1 - 0.01
    return Result(metrics, order.epochs, 1.0, {"torch": "none"})


@dataclass
class Lab:
    """Makes searches and runs them to their end, one trial after the other."""

    engine: Engine
    orders: list[Order] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)

    def submit(self, **spec: Any) -> str:
        asked = {"name": "t", "dataset": {"name": "tiny"}, "backbone": {"name": "resnet8", "width": 16}, **spec}
        plan = make_plan(SearchSpec.parse(asked), {"tiny": ENTRY})
        with writing(self.engine) as session:
            published = PublishedDataset("tiny", ENTRY.fingerprint, ENTRY.model_dump(mode="json"))
            catalog.publish_datasets(session, [published], published_by="tests")
            return searches.create(session, name="t", spec=plan.resolved(), spec_version=1).id

    def claim(self) -> Search:
        with writing(self.engine) as session:
            search = claims.claim_next(session, "tests", 60.0)
        assert search is not None
        return search

    def start(self, search: Search, clock: Callable[[], float] = time.monotonic,
              limits: Limits | None = None, active: ActiveTime | None = None) -> SearchRun:  # fmt: skip
        plan = make_plan(SearchSpec.parse_stored(search.spec), {"tiny": ENTRY})
        table = CostTable(plan.backbone, plan.task, SqlCostStore(self.engine))
        ledger = Ledger(self.engine, search.id, search.attempt, evaluation_lease=60.0)
        self.ledgers.append(ledger)
        active = active or ActiveTime(search.active_seconds, clock)
        run = SearchRun(plan, SpaceCosts(plan.space, table), table, ledger, active, limits, clock)
        run.set_quota(2)
        return run

    def start_again(self, run: SearchRun) -> SearchRun:
        """The same attempt's run rebuilt from the database."""
        search = self.search(run.ledger.search_id)
        return self.start(search)

    def work(self, run: SearchRun, answer: Answer = accuracy, most: int = 10_000) -> None:
        """Gives up to `most` orders to `answer`, one at a time."""
        for _ in range(most):
            order = run.next()
            if isinstance(order, Next):
                if order is Next.DONE:
                    return
                assert not run.live, "the run waits although nothing is running"
                time.sleep(0.05)
                continue
            self.orders.append(order)
            run.began(order.trial_id)
            outcome = answer(order)
            if isinstance(outcome, Failure):
                run.failed(order.trial_id, outcome)
            else:
                run.succeeded(order.trial_id, outcome)

    def finish(self, run: SearchRun) -> Search:
        run.ledger.release(run.status, run.error)
        return self.search(run.ledger.search_id)

    def search(self, search_id: str) -> Search:
        with reading(self.engine) as session:
            return searches.get(session, search_id)

    def trials(self, search_id: str) -> list[Trial]:
        with reading(self.engine) as session:
            return trials.all_of(session, search_id)

    def row(self, trial_id: str) -> Trial:
        with reading(self.engine) as session:
            return trials.get(session, trial_id)


@pytest.fixture
def lab(engine: Engine) -> Iterator[Lab]:
    lab = Lab(engine)
    yield lab
    for ledger in lab.ledgers:
        with contextlib.suppress(DatabaseError, ValueError, SQLAlchemyError):  # a fenced one has said so in its test
            ledger.flush()
