"""All that a driver reads from and writes to SQL for one attempt at one search.

What must be known before a trial starts is written at once; results are queued and committed in groups by a thread
of its own, so that a slow database never keeps a slot idle. Every write carries the attempt: a driver whose search
was taken over learns it by `Fenced` and writes nothing more. Every write is safe to repeat.
"""

from __future__ import annotations

import contextvars
import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import artifacts, attempts, catalog, claims, evaluations, events, searches, trials
from db import resources as resource_rows
from db.engine import retrying
from db.errors import DatabaseUnavailable, Fenced
from db.evaluations import Claim
from db.models import Architecture as ArchitectureRow
from db.models import Dataset, Epoch, Search, Trial
from db.search_rows import fence
from db.trials import EpochReport
from search import weights
from search.cost import Cost
from search.describe import describe
from search.plan import SearchPlan
from workers.ahead import Started
from workers.following import follow
from workers.orders import Failure, Order, Result
from workers.patience import OUTAGE_SECONDS, Patience

ALIVE_SECONDS = 60.0
"""How long a machine counts as there after it was last heard of."""
GROUP = 200
"""Writes committed together at most."""
GATHER_SECONDS = 0.05
"""How long a write waits for others: a commit costs the same for many, and keeps the start of a trial waiting."""

Write = Callable[[Session], None]


class Epochs(NamedTuple):
    """A write of epochs that may join others: one statement for many costs little more than for one."""

    reports: list[EpochReport]


class Queued(NamedTuple):
    """trial_id: whose rows it is about, or None where the order to other writes does not matter. committed: called
    afterwards."""

    trial_id: str | None
    write: Write | Epochs
    committed: Callable[[], object] | None = None


class Ledger:
    """The rows of one search, held by one attempt.

    evaluation_lease: seconds for which an evaluation stays claimed without a heartbeat. outage: seconds for which a
    database that is away is waited for.
    """

    def __init__(
        self, engine: Engine, search_id: str, attempt: int, evaluation_lease: float, outage: float = OUTAGE_SECONDS
    ) -> None:
        self.search_id = search_id
        self._engine = engine
        self._database = Patience(engine, outage)
        self._attempt = attempt
        self._lease = evaluation_lease
        self._writes: queue.Queue[Queued | None] = queue.Queue()
        self._flushing = threading.Event()
        self._failure: Exception | None = None
        context = contextvars.copy_context()  # so that its log lines name the search
        self._thread = threading.Thread(target=context.run, args=(self._write_queued,), name="ledger", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what ended the writing thread: Fenced, DatabaseUnavailable at last, or a refused value."""
        if self._failure is not None:
            raise self._failure

    def search(self) -> Search:
        return self._database.read(lambda session: searches.get(session, self.search_id))

    def datasets(self) -> list[Dataset]:
        return self._database.read(catalog.datasets)

    def weights(self) -> dict[str, str]:
        """Fingerprints by name of the initial weights that machines have published."""
        return weights.published(self.nodes())

    def follow(self, plan: SearchPlan) -> SearchPlan:
        """The plan with what it takes over of its schedule's search before: see `following.follow`."""
        return self._database.write(lambda session: follow(session, self.search_id, self._attempt, plan))

    def nodes(self) -> list[Mapping[str, Any]]:
        """The machines as dispatchers publish them."""
        nodes = self._database.read(lambda session: catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS))
        return [node.document for node in nodes]

    def trials(self) -> tuple[list[Trial], dict[str, ArchitectureRow]]:
        """Every trial of the search by number, and their architectures by key."""

        def work(session: Session) -> tuple[list[Trial], dict[str, ArchitectureRow]]:
            rows = trials.all_of(session, self.search_id)
            return rows, trials.architectures(session, sorted({row.architecture_key for row in rows}))

        return self._database.read(work)

    def epochs(self, numbers: Collection[int]) -> dict[str, list[Epoch]]:
        """The epochs with these numbers of every trial of the search, by trial."""
        found: dict[str, list[Epoch]] = {}
        if numbers:
            rows = self._database.read(lambda session: trials.epochs_of_search(session, self.search_id, numbers))
            for row in rows:
                found.setdefault(row.trial_id, []).append(row)
        return found

    def start(self, order: Order, cost: Cost, dataset_fingerprint: str, conditions: Mapping[str, Any]) -> Started:
        """Writes the row of a trial before it is handed out, and claims its evaluation.

        The order comes back with the row's id and number. The claim says whether to train it, to take over a
        finished result, or to wait for another search that trains it just now.
        """
        return self._database.write(self._starting(order, cost, dataset_fingerprint, conditions))

    def start_ahead(
        self, order: Order, cost: Cost, dataset_fingerprint: str, conditions: Mapping[str, Any]
    ) -> Future[Started]:
        """As `start`, with the next group of writes. What keeps it from being committed is told by `check` only."""
        work = self._starting(order, cost, dataset_fingerprint, conditions)
        future: Future[Started] = Future()
        found: list[Started] = []
        self._queue(None, lambda session: found.append(work(session)), lambda: future.set_result(found[-1]))
        return future

    def _starting(
        self, order: Order, cost: Cost, dataset_fingerprint: str, conditions: Mapping[str, Any]
    ) -> Callable[[Session], Started]:
        architecture = order.architecture

        def work(session: Session) -> Started:
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
            if row.status != "running" or row.evaluation_key != order.evaluation_key:
                row = attempts.restart(
                    session, row.id, self._attempt, retries=order.retries, evaluation_key=order.evaluation_key
                )
            claim = evaluations.claim(
                session, order.evaluation_key, search_id=self.search_id, lease_seconds=self._lease,
                architecture_key=architecture.key, dataset_fingerprint=dataset_fingerprint, conditions=conditions,
                epochs=order.epochs, seed=order.seed, take_expired=self._sees_the_dead,
            )  # fmt: skip
            return order.started(row.id, row.number), claim

        return work

    def retake(self, order: Order) -> bool:
        """Claims a finished evaluation to train it again; False when another search is at it: ask again."""

        def work(session: Session) -> bool:
            fence(session, self.search_id, self._attempt)
            return evaluations.retake(
                session, order.evaluation_key, search_id=self.search_id, lease_seconds=self._lease
            )

        return self._database.write(work)

    def placed(self, trial_id: str, node: str | None, *, first: bool = False) -> None:
        """The Ray node that a trial has been started on; None when it has given up its slot. first: from its start."""
        self._queue(
            trial_id,
            lambda session: attempts.place(session, self.search_id, self._attempt, trial_id, node, first=first),
        )

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, Any], busy: float | None = None) -> None:
        """busy: seconds for which the trial has held its slot."""
        self._queue(trial_id, Epochs([_report(trial_id, epoch, metrics, busy)]))

    def spend(self, busy: Mapping[str, float]) -> None:
        """Seconds for which running trials, by id, have held their slots."""
        if busy:
            self._queue(None, lambda session: attempts.spend(session, self.search_id, self._attempt, busy))

    def noted(self, trial_id: str, notes: Sequence[Mapping[str, Any]]) -> None:
        """What a trial tells beside its numbers becomes events of the search."""
        told = [(str(note["kind"]), {**note, "trial_id": trial_id}) for note in notes]

        def work(session: Session) -> None:
            fence(session, self.search_id, self._attempt)
            events.append_all(session, self.search_id, told)

        if told:
            self._queue(trial_id, work)

    def retried(self, order: Order, failure: Failure, busy: float) -> None:
        """A trial has failed and waits to be started again. order: with that failure counted."""
        self._queue(
            order.trial_id,
            lambda session: attempts.retry(
                session, order.trial_id, self._attempt, retried=order.failures, busy_seconds=busy,
                error=failure.to_json(), deaths=order.deaths.to_json(),
            ),
        )  # fmt: skip

    def succeeded(
        self, order: Order, result: Result, busy: float | None = None, kept: Mapping[str, Any] | None = None, *,
        published: Result | None = None,
    ) -> None:  # fmt: skip
        """Ends a trial with its result and publishes the evaluation for other searches.

        busy: seconds for which it has held its slot. kept: path, bytes and SHA-256 of its weights' file, if it has one.
        published: what others get, if it is more.
        """

        def work(session: Session) -> None:
            trials.finish(
                session, order.trial_id, self._attempt, status="succeeded", metrics=result.metrics,
                epochs=result.epochs, seconds=result.seconds, busy_seconds=busy, environment=result.environment,
            )  # fmt: skip
            if kept is not None:
                artifacts.add(session, order.trial_id, self._attempt, kind=artifacts.WEIGHTS, **kept)
            evaluations.finish(
                session,
                order.evaluation_key,
                search_id=self.search_id,
                trial_id=order.trial_id,
                results=(published or result).to_json(),
            )

        self._queue(order.trial_id, work)

    def reused(self, order: Order, claim: Claim, result: Result) -> None:
        """Ends a trial with the result that another one has measured."""
        self._queue(
            order.trial_id,
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
                    # its search may have been deleted since
                    reused_from=trials.present(session, claim.evaluation.trial_id),
                )
            ),
        )

    def ended(self, order: Order, status: str, failure: Failure, busy: float | None = None) -> None:
        """Ends a trial without a result (failed, cancelled) and lets others try the evaluation."""
        error = failure.to_json()

        def work(session: Session) -> None:
            trials.finish(session, order.trial_id, self._attempt, status=status, error=error, busy_seconds=busy)
            evaluations.release(session, order.evaluation_key, search_id=self.search_id)

        self._queue(order.trial_id, work)

    def stopped(self, order: Order, epoch: int, reported: Mapping[str, Any], metrics: Mapping[str, float],
                why: Failure, busy: float) -> None:  # fmt: skip
        """Ends a trial early, after `epoch`, of which `reported` was told; metrics: what it had come to by then.

        In one transaction with that epoch: an epoch at a rung whose trial goes on is one that was passed. Others may
        try the evaluation, which has no result.
        """
        report = _report(order.trial_id, epoch, reported, busy)

        def work(session: Session) -> None:
            trials.record_epochs(session, self.search_id, self._attempt, [report])
            trials.finish(
                session, order.trial_id, self._attempt, status="stopped", metrics=metrics, epochs=epoch,
                seconds=trials.trained_seconds(session, order.trial_id, epoch), busy_seconds=busy, error=why.to_json(),
            )  # fmt: skip
            evaluations.release(session, order.evaluation_key, search_id=self.search_id)

        self._queue(order.trial_id, work)

    def progress(self, **values: Any) -> None:
        """Phase, hypervolume, best trial, bounds: see `searches.set_progress`."""

        def work(session: Session) -> None:
            if not searches.set_progress(session, self.search_id, self._attempt, **values):
                raise Fenced(self.search_id, self._attempt)

        self._queue(None, work)

    def settled(self, resources: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        """What one trial takes, found out before the first: see `resources.settle`. Written when it returns."""

        def work(session: Session) -> None:
            if not resource_rows.settle(session, self.search_id, self._attempt, resources, event):
                raise Fenced(self.search_id, self._attempt)

        self._database.write(work)

    def heartbeat(
        self, lease_seconds: float, active_seconds: float | None = None, seconds_left: float | None = None
    ) -> Search | None:
        """Renews the lease and gives the search as it is now; None when another attempt holds it.

        active_seconds: for which drivers have worked on it; seconds_left: an estimate. Raises DatabaseUnavailable
        soon, as there is a next beat.
        """

        def work(session: Session) -> Search | None:
            # the search's row first, as every write of this ledger does: no two transactions wait for each other
            held = claims.renew(
                session, self.search_id, self._attempt, lease_seconds, active_seconds=active_seconds,
                seconds_left=seconds_left,
            )  # fmt: skip
            if not held:
                return None
            evaluations.renew(session, self.search_id, self._lease)
            return searches.get(session, self.search_id)

        try:
            return retrying(self._engine, work, attempts=2)
        except DatabaseUnavailable:
            self._database.away_at = time.monotonic()
            raise

    @property
    def _sees_the_dead(self) -> bool:
        """Whether a lease that has run out tells that its owner is dead: not just after nobody could renew any."""
        return time.monotonic() - self._database.away_at > self._lease

    def release(self, status: str, error: Mapping[str, Any] | None = None, active_seconds: float | None = None) -> bool:
        """Writes what is queued, then ends the lease with `status`; False when another attempt holds the search."""
        self.flush()
        return self._database.write(
            lambda session: claims.release(
                session, self.search_id, self._attempt, status, error=error, active_seconds=active_seconds
            )
        )

    def flush(self) -> None:
        """Waits until everything queued is committed; raises what kept it from that."""
        if self._thread.is_alive():
            self._flushing.set()
            self._writes.put(None)
            self._thread.join()
        self.check()

    def _queue(
        self, trial_id: str | None, write: Write | Epochs, committed: Callable[[], object] | None = None
    ) -> None:
        self.check()
        self._writes.put(Queued(trial_id, write, committed))

    def _write_queued(self) -> None:
        last = False
        while not last:
            group = [self._writes.get()]
            self._flushing.wait(GATHER_SECONDS)
            while len(group) < GROUP and not self._writes.empty():
                group.append(self._writes.get())
            last = None in group
            try:
                for part in self._transactions([one for one in group if one is not None]):
                    self._commit(merged(part))
                    for one in part:
                        if one.committed is not None:
                            one.committed()
            except Exception as error:  # noqa: BLE001 - whatever it is: without this thread results would be lost
                self._failure = error
                return

    def _transactions(self, group: list[Queued]) -> list[list[Queued]]:
        """What is committed together. A claim of an evaluation waits for whoever has that row, so it may hold no other
        one meanwhile: two searches that want the same ones would wait for each other. SQLite has one writer anyway."""
        if self._engine.dialect.name == "sqlite":
            return [group]
        parts: list[list[Queued]] = [[]]
        for one in group:
            if one.committed is None:
                parts[-1].append(one)
            else:
                parts += [[one], []]
        return [part for part in parts if part]

    def _commit(self, group: Sequence[Write | Epochs]) -> None:
        def work(session: Session) -> None:
            for write in group:
                if isinstance(write, Epochs):
                    trials.record_epochs(session, self.search_id, self._attempt, write.reports)
                else:
                    write(session)

        if group:
            self._database.write(work)


def merged(group: Sequence[Queued]) -> list[Write | Epochs]:
    """The writes in order, with epochs brought forward to join earlier ones unless something else about the same trial
    stands between."""
    writes: list[Write | Epochs] = []
    joined: Epochs | None = None
    touched: set[str | None] = set()
    for trial_id, write, _ in group:
        if not isinstance(write, Epochs):
            touched.add(trial_id)
            writes.append(write)
        elif joined is None or trial_id in touched:
            joined = Epochs(list(write.reports))
            touched.clear()
            writes.append(joined)
        else:
            joined.reports.extend(write.reports)
    return writes


def result_of(claim: Claim) -> Result:
    """What another trial has measured."""
    found = claim.evaluation.results or {}
    return Result(found["metrics"], found["epochs"], found["seconds"], found["environment"])


def _report(trial_id: str, epoch: int, metrics: Mapping[str, Any], busy: float | None) -> EpochReport:
    return EpochReport(trial_id, epoch, {name: _finite(value) for name, value in metrics.items()}, busy)


def _finite(value: Any) -> Any:
    """None for NaN and infinities, which no database may see."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ignore(value: object) -> None:
    """A write whose row is not needed."""
    del value
