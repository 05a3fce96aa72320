"""One search in progress: what to train next, and what results mean. Knows no Ray, so it can be tested and replayed.

Everything here is rebuilt from the rows in SQL, so a first start, a restart after a crash and a resume are one path.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from search.architecture import Architecture
from search.cost import Cost, CostTable
from search.errors import SpecError
from search.plan import SearchPlan
from search.space_cost import SpaceCosts
from search.strategies.base import Outcome
from search.strategies.early_stopping import Verdict
from workers import ahead
from workers.agenda import Agenda, Next
from workers.attempts import Attempts
from workers.budget import ActiveTime, Budget
from workers.early_stops import EarlyStops, measured
from workers.estimate import Batch, Pace, time_left
from workers.evaluation import conditions_of
from workers.latencies import Latencies
from workers.ledger import Ledger, result_of
from workers.orders import Failure, Order, Result
from workers.outcomes import Outcomes
from workers.restoring import metrics_of, unfinished_order
from workers.standing import Standing
from workers.stopping import Limits, Stop, why_ended, why_stopped

TICK_SECONDS = 1.0
SPEND_SECONDS = 15.0
"""How much slot time of a trial a dead driver may leave uncounted, roughly."""

log = structlog.get_logger()


class SearchRun:
    """Hands out orders and takes in results, all in the driver's thread; its heartbeat's thread calls `halt`, sets the
    quota and reads `seconds_left`.

    live: what has been handed out. attempts: those of them that have a process. fault: what has made going on
    impossible (another attempt holds the search, the database is gone, a bug). outdated: the data are not those of the
    plan, and nothing has come of the search yet.
    """

    def __init__(self, plan: SearchPlan, costs: SpaceCosts, table: CostTable, ledger: Ledger,
                 active: ActiveTime | None = None, limits: Limits | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        self.plan = plan
        self.ledger = ledger
        self.quota = 1
        self.stop: Stop | None = None
        self.live: dict[str, Order] = {}
        self.attempts = Attempts(clock)
        self.failure: Failure | None = None
        self.fault: Exception | None = None
        self.overdue: set[str] = set()
        self.outdated = False
        self.seconds_left: float | None = None
        self.limits = limits or Limits()
        self._table = table
        self._clock = clock
        self._stopped_at = self._ticked_at = self._spent_at = clock()
        self._costs = costs
        self._strategy = plan.strategy(costs)
        self._active = active or ActiveTime(clock=clock)
        self._budget = Budget(plan.spec, self._active, self.attempts)
        self._standing = Standing(plan.bounds(costs), table)
        self._latencies = Latencies()
        spared = frozenset(plan.space.architecture(genotype).key for genotype in plan.previous)
        self._early = EarlyStops(plan.early_stopping(), self._standing, spared)
        self._agenda = Agenda(plan, self._strategy, self._budget, self._standing, lambda: self._answered, clock)
        self._ahead = ahead.Ahead(ledger.check)
        self._outcomes = Outcomes()
        self._pace = Pace()
        self._got_on = False
        self._phase = ""
        for _, architecture in plan.controls:
            self._tell(architecture, None)
        self._restore()
        self._publish_bounds()
        ledger.progress(**self._standing.told())

    def set_quota(self, slots: int) -> None:
        """The search's share of the slots; its own `concurrent` may ask for less."""
        self.quota = max(1, min(slots, self.plan.spec.resources.concurrent or slots))

    @property
    def status(self) -> str:
        """What the search has come to, once `next` has said DONE."""
        if self.stop is not None:
            return self.stop.value
        return "succeeded" if self.failure is None and self._answered else "failed"

    @property
    def _answered(self) -> bool:
        """Whether an explored trial has succeeded, or a control where controls are all that the space holds."""
        only_controls = self._agenda.exhausted and not self._agenda.explored
        return self._outcomes.explored_well > 0 or (only_controls and bool(self._standing.finished))

    @property
    def error(self) -> dict[str, str] | None:
        """Why a failed search has failed."""
        return self._outcomes.why_failed(self.failure) if self.status == "failed" else None

    @property
    def over(self) -> bool:
        """Whether no further trial is started, whatever is left to do."""
        return self.stop is not None or self.failure is not None or self.fault is not None

    @property
    def full(self) -> bool:
        """Whether as many trials are live as the quota allows, or more since it has become smaller."""
        return len(self.live) >= self.quota

    @property
    def must_end(self) -> bool:
        """Whether the processes that are left must be ended now: a pause and a hand-back leave time for epochs to end,
        so that nothing of them is lost."""
        if self.stop is not None and self.stop.drains and self.failure is None and self.fault is None:
            return not len(self.attempts) or self._clock() - self._stopped_at >= self.limits.drain
        return self.over

    def halt(self, stop: Stop) -> bool:
        """Ends the run before its time; a cancel may still follow a pause. Whether this changes anything."""
        if self.stop is not None and (self.stop is Stop.CANCEL or stop is not Stop.CANCEL):
            return False
        self._stopped_at = self._clock()
        self.stop = stop
        return True

    def tick(self) -> list[str]:
        """To be called often: looks at the time about once a second. Trials whose processes hang and must be ended."""
        now = self._clock()
        if now - self._ticked_at < TICK_SECONDS:
            return []
        self._ticked_at = now
        self.ledger.check()  # trials may train for hours without a call that would notice
        self.seconds_left = self._estimate()
        if now - self._spent_at >= SPEND_SECONDS:
            self._spent_at = now
            self.ledger.spend({trial_id: self.attempts.busy(trial_id) for trial_id in self.attempts.live()})
        silent = [trial_id for trial_id in self.attempts.silent(self.limits.epoch) if trial_id not in self.overdue]
        self.overdue.update(silent)
        return silent

    def next(self) -> Order | Next:
        """The next trial to start, its row written; results known already are taken over on the way."""
        self.ledger.check()
        while not self.over and len(self.live) < self.quota:
            started = self._start_next()
            if isinstance(started, Next):
                return started
            order, claim = started
            self._enter(order.phase)
            if claim.outcome == "finished" and self._latencies.compares(known := result_of(claim)):
                self.ledger.reused(order, claim, known)
                log.info("trial.reused", trial=order.trial_id, number=order.number, source=claim.evaluation.trial_id)
                self._take(order, known)
            elif claim.outcome == "mine" or (claim.outcome == "finished" and self.ledger.retake(order)):
                self.live[order.trial_id] = order
                return order
            else:
                self._agenda.elsewhere(order)
        return Next.DONE if self.over else Next.WAIT

    def _start_next(self) -> ahead.Started | Next:
        taken_up = self._agenda.taken_up()
        if taken_up is None and len(self._ahead):
            if not self._budget.spent:
                return self._ahead.next()
            self._drop_prepared()
        order = taken_up or self._agenda.fresh(len(self.live))
        return order if isinstance(order, Next) else self.ledger.start(order, *self._row_of(order))

    def prepare(self) -> None:
        """To be called often, where it costs no slot any time: has rows written of short trials that come next. Not
        where what comes next depends on the results of those that run."""
        if self.over or not self.full or self._strategy.learns:
            return
        while len(self._ahead) < ahead.wanted(self.quota, self._fresh_seconds) and not self._budget.spent:
            order = self._agenda.fresh(len(self.live))
            if isinstance(order, Next):
                return
            self._ahead.add(self.ledger.start_ahead(order, *self._row_of(order)))

    def _row_of(self, order: Order) -> tuple[Cost, str, dict[str, Any]]:
        cost = self._table.architecture(order.architecture)
        return cost, self.plan.dataset.fingerprint, conditions_of(self.plan, order)

    def began(self, trial_id: str, node: str | None = None) -> None:
        """The trial has a process now. node: the Ray node that it is on."""
        order = self.live[trial_id]
        self._active.begin()
        self.attempts.begin(trial_id, order.epochs_done)
        if node is not None:
            self.ledger.placed(trial_id, node, first=not (order.retries or order.epochs_done))
        log.info("trial.started", trial=trial_id, number=order.number, phase=order.phase, retries=order.retries,
                 node=node)  # fmt: skip

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, Any], saved: int | None = None,
              complete: bool = False) -> None:  # fmt: skip
        """An epoch has ended, which may be a trial's last one: it is not live any more then. saved: the last epoch
        whose checkpoint is in the store, if that is new. complete: whether the trial has its result already."""
        order = self.live[trial_id]
        if saved is not None and saved > order.epochs_done and not self._got_on:
            self._got_on = True  # said once by each driver: that is all it takes
            self.ledger.progress(got_on=True)
        self.attempts.hear(trial_id, epoch, saved)
        verdict = None
        if complete:
            self._early.passed(order, epoch, metrics)
        else:
            verdict = self._early.judge(order, epoch, metrics)
        if verdict is not None and verdict.stops:
            self._stop_early(trial_id, verdict, metrics)
        else:
            self.ledger.epoch(trial_id, epoch, metrics, self.attempts.busy(trial_id))

    def _stop_early(self, trial_id: str, verdict: Verdict, metrics: Mapping[str, Any]) -> None:
        """Ends a trial that is not worth its further epochs: for good, and without a result."""
        order, _ = self._close(trial_id)
        busy = self.attempts.busy(trial_id)
        why = why_stopped(verdict, order.epochs)
        self.ledger.stopped(order, verdict.epoch, metrics, measured(metrics), why, busy)
        log.info("trial.stopped", trial=trial_id, number=order.number, message=why.message)
        self._pace.measure(busy, verdict.epoch)
        self._outcomes.well()
        self._tell(order.architecture, None)
        self.ledger.progress(got_on=True)

    def noted(self, trial_id: str, notes: Sequence[Mapping[str, Any]]) -> None:
        """What a trial tells beside its numbers becomes events of the search."""
        for note in notes:
            resumed = note["kind"] == "trial.resumed"
            log.log(logging.INFO if resumed else logging.WARNING, note["kind"], trial=trial_id, message=note["message"])
            if resumed:
                self.attempts.hear(trial_id, int(note["epoch"]), int(note["epoch"]))
        self.ledger.noted(trial_id, notes)

    def succeeded(self, trial_id: str, result: Result, weights: Mapping[str, Any] | None = None) -> None:
        """Ends a trial with its result; one that holds NaN or an infinity is a failure. weights: their file."""
        wrong = [name for name, value in result.metrics.items() if not math.isfinite(value)]
        if wrong:
            self.failed(trial_id, Failure("nan_loss", f"Not finite at the end: {', '.join(wrong)}."))
            return
        order, _ = self._close(trial_id)
        busy = self.attempts.busy(trial_id)
        admitted = self._admitted(trial_id, result)
        self.ledger.succeeded(order, admitted, busy, weights, published=result)
        self._pace.measure(busy, result.epochs)
        log.info("trial.finished", trial=trial_id, number=order.number, seconds=round(result.seconds, 3),
                 busy=round(busy, 3))  # fmt: skip
        self._take(order, admitted)

    def _admitted(self, trial_id: str, result: Result) -> Result:
        """The result as it counts in this search: without latencies of another device than the first one's."""
        first = self._latencies.device is None
        admitted = self._latencies.comparable(result)
        if admitted is not result:
            self.noted(trial_id, [self._latencies.note(result)])
        elif first and self._latencies.device is not None:
            self._publish_bounds()
        return admitted

    def _publish_bounds(self) -> None:
        """Fixes the scale of the hypervolume, as soon as it is known: that of latencies is with the first of them."""
        bounds = self.plan.bounds(self._costs, self._latencies.first)
        self._standing.bounds = bounds
        if bounds.known:
            self.ledger.progress(bounds={"objectives": bounds.to_json()})

    def failed(self, trial_id: str, failure: Failure) -> None:
        """Ends a trial without a result, or queues it again where that kind of failure may pass."""
        order, saved = self._close(trial_id)
        if failure.kind == "changed_data":
            if not self._outcomes.any_well:  # nothing is lost: the search is planned anew with the data of now
                self.outdated = True
                self.halt(Stop.HAND_BACK)
                self._set_aside(order, saved)
                return
            failure = replace(failure, kind="dataset")
        if self.over and failure.kind == "killed":  # this driver has ended its process, or might as well have
            self._set_aside(order, saved)
            return
        busy = self.attempts.busy(trial_id)
        told = {"trial": trial_id, "number": order.number, "kind": failure.kind, "message": failure.message}
        if self.failure is None and order.may_follow(failure, saved):
            order = order.after(failure, saved)
            log.warning("trial.retried", **told, retries=order.retries)
            self.ledger.retried(order, failure, busy)
            self._agenda.again(order)
            return
        log.error("trial.failed", **told)
        self.ledger.ended(order, "failed", failure, busy)
        self._early.failed(order)
        if self._outcomes.failed(failure):
            self.failure = failure

    def give_up(self, failure: Failure) -> None:
        """The search fails, unless it has been cancelled."""
        if self.stop is not Stop.CANCEL:
            self.stop, self.failure = None, failure

    def drained(self, trial_id: str) -> None:
        """A trial has ended its epoch while the run is stopping."""
        self._set_aside(*self._close(trial_id))

    def hands_over(self, trial_id: str) -> bool:
        """Whether a trial is to give up its slot after this epoch: the search's share has become smaller, and all that
        the trial has done is in the store."""
        return len(self.live) > self.quota and self.attempts.is_saved(trial_id)

    def handed_over(self, trial_id: str) -> None:
        """A trial has given its slot to another search; it goes on before any other of this one is started."""
        order, saved = self._close(trial_id)
        log.info("trial.handed_over", trial=trial_id, number=order.number, epoch=saved)
        self.ledger.placed(trial_id, None)
        self._agenda.again(replace(order, epochs_done=saved))

    def cancel_live(self) -> None:
        """Marks what was running, or waited to be started again, when the run ended."""
        for trial_id in list(self.live):
            self._set_aside(*self._close(trial_id))
        self._drop_prepared()
        for order in self._agenda.waiting():
            self._set_aside(order, order.epochs_done)

    def _drop_prepared(self) -> None:
        """Sets those aside that have a row and will not be started."""
        while len(self._ahead):
            order, _ = self._ahead.next()
            self._set_aside(order, order.epochs_done)

    def _close(self, trial_id: str) -> tuple[Order, int]:
        """The trial has no process any more. Its order, and the last epoch that is saved."""
        order = self.live.pop(trial_id)
        self.overdue.discard(trial_id)
        attempt = self.attempts.end(trial_id)
        return order, order.epochs_done if attempt is None else attempt.saved

    def _set_aside(self, order: Order, saved: int) -> None:
        """Ends a trial that has not failed; it goes on if the search does."""
        why = why_ended(self.stop, self.failure, saved)
        log.info("trial.ended", trial=order.trial_id, number=order.number, kind=why.kind, message=why.message)
        self.ledger.ended(order, "cancelled", why, self.attempts.busy(order.trial_id))

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self.ledger.progress(phase=phase)

    def _take(self, order: Order, result: Result) -> None:
        """Learns from a finished trial."""
        self._outcomes.well()
        self._learn(order.trial_id, order.phase, order.architecture, result.metrics)
        self.ledger.progress(got_on=True, **self._standing.told())

    def _learn(self, trial_id: str, phase: str, architecture: Architecture, metrics: dict[str, float]) -> None:
        if phase == "confirm":
            return
        self._outcomes.explored_well += phase == "explore"
        values = self._standing.add(trial_id, architecture, metrics)
        if values is not None:
            self._tell(architecture, values)

    def _tell(self, architecture: Architecture, values: tuple[float, ...] | None) -> None:
        """Controls outside the space are no news for the strategy."""
        try:
            genotype = self.plan.space.genotype(architecture)
        except SpecError:
            return
        self._strategy.tell(Outcome(genotype, values))

    @property
    def _fresh_seconds(self) -> float | None:
        """What the next trial takes that was not started before; None before one has ended."""
        each = self._pace.seconds_per_epoch
        return None if each is None else each * self._agenda.fresh_epochs

    def _estimate(self) -> float | None:
        """Seconds to the end, or None before a trial was trained to its end or stopped early."""
        each = self._pace.seconds_per_epoch
        if each is None:
            return None
        running = [
            max(
                0.0,
                self._early.epochs_left(order.phase, order.epochs, attempt.epoch) * each
                - self.attempts.since_report(trial_id),
            )
            for trial_id, attempt in self.attempts.live().items()
            if (order := self.live.get(trial_id)) is not None
        ]
        quota = self.quota
        until = self._budget.seconds_left(quota)
        prepared = Batch(len(self._ahead), self.plan.epochs * each)
        left = [prepared, *self._agenda.batches(each, self._early.epochs_left)]
        return time_left(running, left, quota, max(0.0, until))

    def _restore(self) -> None:
        """Takes in the rows that earlier attempts have left; what they had not finished is started again."""
        rows, architectures = self.ledger.trials()
        epochs = self.ledger.epochs(self._early.rungs)
        self._latencies.restore(rows)
        self._standing.bounds = self.plan.bounds(self._costs, self._latencies.first)
        for row in rows:
            architecture = Architecture.from_json(architectures[row.architecture_key].document)
            self._early.restore(row, architecture, epochs.get(row.id, ()))
            self._agenda.restore(row.phase, row.architecture_key, row.seed)
            self.attempts.restore(row.id, row.busy_seconds)
            if row.status in ("succeeded", "reused"):
                self._outcomes.well()
                self._pace.measure(row.busy_seconds, row.epochs)
                self._learn(row.id, row.phase, architecture, metrics_of(row))
                continue
            self._tell(architecture, None)
            if row.status in ("running", "cancelled"):
                self._agenda.again(unfinished_order(self.plan, row, architecture))
            elif row.status == "stopped":
                self._outcomes.well()
                self._pace.measure(row.busy_seconds, row.epochs)
            else:
                self._outcomes.restore_failed(row.error)
