"""All that a driver reads from and writes to SQL for one attempt at one search.

What must be known before a trial starts is written at once; results are queued and committed in groups by a thread
of its own, so that a slow database never keeps a slot idle. Every write carries the attempt: a driver whose search
was taken over learns it by `Fenced` and writes nothing more. Every write is safe to repeat.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import catalog, claims, evaluations, searches, trials
from db.engine import reading, retrying
from db.errors import Fenced
from db.evaluations import Claim
from db.models import Architecture as ArchitectureRow
from db.models import Dataset, Search, Trial
from db.trials import EpochReport
from search import weights
from search.cost import Cost
from search.describe import describe
from workers.orders import Failure, Order, Result

OUTAGE_ATTEMPTS = 60
"""Attempts at a write while the database is away: with delays of up to 2 s, about a minute and a half."""
ALIVE_SECONDS = 60.0
"""How long a machine counts as there after it was last heard of."""
GROUP = 200
"""Writes committed together at most."""

Write = Callable[[Session], None]


class Ledger:
    """The rows of one search, held by one attempt.

    evaluation_lease: seconds for which an evaluation stays claimed without a heartbeat.
    """

    def __init__(self, engine: Engine, search_id: str, attempt: int, evaluation_lease: float) -> None:
        self.search_id = search_id
        self._engine = engine
        self._attempt = attempt
        self._lease = evaluation_lease
        self._writes: queue.Queue[Write | None] = queue.Queue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._write_queued, name="ledger", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what ended the writing thread: Fenced, DatabaseUnavailable at last, or a refused value."""
        if self._failure is not None:
            raise self._failure

    def search(self) -> Search:
        with reading(self._engine) as session:
            return searches.get(session, self.search_id)

    def datasets(self) -> list[Dataset]:
        with reading(self._engine) as session:
            return catalog.datasets(session)

    def weights(self) -> dict[str, str]:
        """Fingerprints by name of the initial weights that machines have published."""
        with reading(self._engine) as session:
            nodes = catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)
        return weights.published(node.document for node in nodes)

    def trials(self) -> tuple[list[Trial], dict[str, ArchitectureRow]]:
        """Every trial of the search by number, and their architectures by key."""
        with reading(self._engine) as session:
            rows = trials.all_of(session, self.search_id)
            return rows, trials.architectures(session, sorted({row.architecture_key for row in rows}))

    def start(
        self, order: Order, cost: Cost, dataset_fingerprint: str, conditions: Mapping[str, Any]
    ) -> tuple[Order, Claim]:
        """Writes the row of a trial before it is handed out, and claims its evaluation.

        The order comes back with the row's id and number. The claim says whether to train it, to take over a
        finished result, or to wait for another search that trains it just now.
        """
        architecture = order.architecture

        def work(session: Session) -> tuple[Order, Claim]:
            label = describe(architecture)
            document = architecture.to_json()
            trials.put_architecture(
                session, architecture.key, backbone=architecture.backbone.name, document=document, label=label
            )
            row = trials.add(
                session, self.search_id, self._attempt, phase=order.phase, role=order.role, label=label,
                architecture_key=architecture.key, seed=order.seed, epochs_planned=order.epochs, params=cost.params,
                macs=cost.macs, evaluation_key=order.evaluation_key,
                proposal={"genotype": order.genotype and list(order.genotype), **order.note},
            )  # fmt: skip
            if row.status != "running" or order.retries > row.retries:
                row = trials.restart(session, row.id, self._attempt, retries=order.retries)
            claim = evaluations.claim(
                session, order.evaluation_key, search_id=self.search_id, lease_seconds=self._lease,
                architecture_key=architecture.key, dataset_fingerprint=dataset_fingerprint, conditions=conditions,
                epochs=order.epochs, seed=order.seed,
            )  # fmt: skip
            return order.started(row.id, row.number), claim

        return retrying(self._engine, work, attempts=OUTAGE_ATTEMPTS)

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        report = EpochReport(trial_id, epoch, {name: _finite(value) for name, value in metrics.items()})
        self._queue(lambda session: trials.record_epochs(session, self.search_id, self._attempt, [report]))

    def succeeded(self, order: Order, result: Result) -> None:
        """Ends a trial with its result and publishes the evaluation for other searches."""

        def work(session: Session) -> None:
            trials.finish(
                session, order.trial_id, self._attempt, status="succeeded", metrics=result.metrics,
                epochs=result.epochs, seconds=result.seconds, environment=result.environment,
            )  # fmt: skip
            evaluations.finish(
                session,
                order.evaluation_key,
                search_id=self.search_id,
                trial_id=order.trial_id,
                results=result.to_json(),
            )

        self._queue(work)

    def reused(self, order: Order, claim: Claim) -> Result:
        """Ends a trial with the result that another one has measured."""
        found = claim.evaluation.results or {}
        result = Result(found["metrics"], found["epochs"], found["seconds"], found["environment"])
        self._queue(
            lambda session: _ignore(
                trials.finish(
                    session,
                    order.trial_id,
                    self._attempt,
                    status="reused",
                    metrics=result.metrics,
                    epochs=result.epochs,
                    seconds=result.seconds,
                    environment=result.environment,
                    reused_from=claim.evaluation.trial_id,
                )
            )
        )
        return result

    def ended(self, order: Order, status: str, failure: Failure | None) -> None:
        """Ends a trial without a result (failed, cancelled) and lets others try the evaluation."""
        error = None if failure is None else failure.to_json()

        def work(session: Session) -> None:
            trials.finish(session, order.trial_id, self._attempt, status=status, error=error)
            evaluations.release(session, order.evaluation_key, search_id=self.search_id)

        self._queue(work)

    def progress(self, **values: Any) -> None:
        """Phase, hypervolume, best trial, bounds: see `searches.set_progress`."""

        def work(session: Session) -> None:
            if not searches.set_progress(session, self.search_id, self._attempt, **values):
                raise Fenced(self.search_id, self._attempt)

        self._queue(work)

    def heartbeat(self, lease_seconds: float) -> Search | None:
        """Renews the lease and gives the search as it is now; None when another attempt holds it."""

        def work(session: Session) -> bool:
            evaluations.renew(session, self.search_id, self._lease)
            return claims.renew(session, self.search_id, self._attempt, lease_seconds)

        return self.search() if retrying(self._engine, work, attempts=2) else None

    def release(self, status: str, error: Mapping[str, Any] | None = None) -> bool:
        """Writes what is queued, then ends the lease with `status`; False when another attempt holds the search."""
        self.flush()
        return retrying(
            self._engine,
            lambda session: claims.release(session, self.search_id, self._attempt, status, error=error),
            attempts=OUTAGE_ATTEMPTS,
        )

    def flush(self) -> None:
        """Waits until everything queued is committed; raises what kept it from that."""
        if self._thread.is_alive():
            self._writes.put(None)
            self._thread.join()
        self.check()

    def _queue(self, write: Write) -> None:
        self.check()
        self._writes.put(write)

    def _write_queued(self) -> None:
        last = False
        while not last:
            group = [self._writes.get()]
            while len(group) < GROUP and not self._writes.empty():
                group.append(self._writes.get())
            last = None in group
            try:
                self._commit([write for write in group if write is not None])
            except Exception as error:  # noqa: BLE001 - whatever it is: without this thread results would be lost
                self._failure = error
                return

    def _commit(self, group: Sequence[Write]) -> None:
        def work(session: Session) -> None:
            for write in group:
                write(session)

        if group:
            retrying(self._engine, work, attempts=OUTAGE_ATTEMPTS)


def _finite(value: Any) -> Any:
    """None for NaN and infinities, which no database may see."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ignore(value: object) -> None:
    """A write whose row is not needed."""
    del value
