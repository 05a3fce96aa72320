"""One search in progress: what to train next, and what results mean. Knows no Ray, so it can be tested and replayed.

Everything here is rebuilt from the rows in SQL, so a first start, a restart after a crash and a resume are one path.
"""

from __future__ import annotations

import enum
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from db.models import Trial
from search.architecture import Architecture
from search.cost import CostTable
from search.errors import SpecError
from search.pareto import front, minimised
from search.plan import SearchPlan
from search.space import Genotype
from search.space_cost import SpaceCosts
from search.strategies.base import Outcome
from workers.budget import Budget
from workers.confirmation import confirm_orders
from workers.evaluation import conditions_of, evaluation_key
from workers.ledger import Ledger
from workers.orders import RETRIES, Failure, Order, Phase, Result, Role

RECHECK_SECONDS = 0.5
"""How often a result that another search is training is looked for."""
FAILS_EARLY = 5
"""A search fails when its first five trials, and over half of all, have failed."""


class Next(enum.Enum):
    """Instead of an order: nothing for the moment, or nothing any more."""

    WAIT = "wait"
    DONE = "done"


class Stop(enum.Enum):
    """Why a run ends before its budget: the search's status afterwards."""

    CANCEL = "cancelled"
    PAUSE = "paused"
    HAND_BACK = "queued"


class SearchRun:
    """Hands out orders and takes in results. Called by the driver's thread; `quota` and `stop` by its heartbeat's."""

    def __init__(self, plan: SearchPlan, costs: SpaceCosts, table: CostTable, ledger: Ledger, budget: Budget,
                 clock: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        self.plan = plan
        self.ledger = ledger
        self.quota = 1
        self.stop: Stop | None = None
        self.live: dict[str, Order] = {}
        self.failure: Failure | None = None
        self._table = table
        self._budget = budget
        self._clock = clock
        self._bounds = plan.bounds(costs)
        self._strategy = plan.strategy(costs)
        self._planned = self._planned_orders()
        self._again: deque[Order] = deque()
        self._elsewhere: deque[tuple[float, Order]] = deque()
        self._confirming: Iterator[Order] | None = None
        self._values: list[tuple[float, ...]] = []
        self._best: tuple[float, str] | None = None
        self._ended: list[bool] = []
        self._explored = self._explored_well = 0
        self._done: dict[tuple[str, str, int], str] = {}
        self._finished: dict[str, tuple[Architecture, tuple[float, ...]]] = {}
        self._number = 0
        self._phase = ""
        self._exhausted = False
        self._last_failure: Failure | None = None
        for _, architecture in plan.controls:
            self._tell(architecture, None)
        self._restore()
        ledger.progress(bounds={"objectives": self._bounds.to_json()}, **self._standing())

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
        return self._explored_well > 0 or (self._exhausted and not self._explored and bool(self._finished))

    @property
    def error(self) -> dict[str, str] | None:
        """Why a failed search has failed."""
        if self.status != "failed":
            return None
        failure = self.failure or self._last_failure or Failure("error", "No architecture of the space could be tried.")
        return {"kind": failure.kind, "message": f"No trial of the search succeeded: {failure.message}"}

    def next(self) -> Order | Next:
        """The next trial to start, its row written; results known already are taken over on the way."""
        self.ledger.check()
        if self.stop is not None or self.failure is not None:
            return Next.DONE
        while len(self.live) < self.quota:
            order = self._next_order()
            if isinstance(order, Next):
                return order
            cost = self._table.architecture(order.architecture)
            conditions = conditions_of(self.plan, order)
            order, claim = self.ledger.start(order, cost, self.plan.dataset.fingerprint, conditions)
            self._number = max(self._number, order.number)
            self._enter(order.phase)
            if claim.outcome == "finished":
                self._take(order, self.ledger.reused(order, claim))
            elif claim.outcome == "busy":
                self._elsewhere.append((self._clock(), order))
            else:
                self.live[order.trial_id] = order
                return order
        return Next.WAIT

    def succeeded(self, trial_id: str, result: Result) -> None:
        """Ends a trial with its result; one that holds NaN or an infinity is a failure."""
        wrong = [name for name, value in result.metrics.items() if not math.isfinite(value)]
        if wrong:
            self.failed(trial_id, Failure("nan_loss", f"Not finite at the end: {', '.join(wrong)}."))
            return
        order = self.live.pop(trial_id)
        self.ledger.succeeded(order, result)
        self._budget.spend(result.seconds)
        self._take(order, result)

    def failed(self, trial_id: str, failure: Failure) -> None:
        """Ends a trial without a result, or queues it again where that kind of failure may pass."""
        order = self.live.pop(trial_id)
        if self.stop is not None:
            self.ledger.ended(order, "cancelled", Failure("killed", f"The search was {self.stop.value}."))
            return
        if self.failure is None and order.retries < RETRIES.get(failure.kind, 0):
            self._again.append(order.retried())  # its row goes on running: it is restarted when it is handed out
            return
        self.ledger.ended(order, "failed", failure)
        self._ended.append(False)
        self._last_failure = failure
        hopeless = len(self._ended) >= FAILS_EARLY and not any(self._ended[:FAILS_EARLY])
        if failure.kind in ("dataset", "weights") or (hopeless and sum(self._ended) * 2 < len(self._ended)):
            self.failure = failure

    def cancel_live(self) -> None:
        """Marks what was running, or waited to be started again, when the run ended."""
        why = Failure("killed", f"The search was {self.stop.value if self.stop else 'ended'}.")
        for order in (*self.live.values(), *self._again, *(order for _, order in self._elsewhere)):
            self.ledger.ended(order, "cancelled", why)
        for waiting in (self.live, self._again, self._elsewhere):
            waiting.clear()

    def _next_order(self) -> Order | Next:
        if self._again:
            return self._again.popleft()
        if self._elsewhere and self._clock() - self._elsewhere[0][0] >= RECHECK_SECONDS:
            return self._elsewhere.popleft()[1]
        order = next(self._planned, None)
        if order is not None:
            return order
        if self._confirming is None and (self.live or self._elsewhere):
            return Next.WAIT  # what is confirmed depends on their results
        order = self._next_confirmation()
        if order is None:
            return Next.WAIT if self.live or self._elsewhere else Next.DONE
        return order

    def _planned_orders(self) -> Iterator[Order]:
        """Controls, then what the strategy proposes while the budget lasts."""
        for role, architecture in self.plan.controls:
            order = self._order("controls", role, architecture)
            if not self._is_done(order):
                yield order
        while self._explored < self.plan.spec.budget.trials and not self._budget.spent:
            proposal = self._strategy.ask(self._number + 1)
            if proposal is None:
                self._exhausted = True
                return
            self._explored += 1
            architecture = self.plan.space.architecture(proposal.genotype)
            yield self._order("explore", "explore", architecture, proposal.genotype, proposal.note)

    def _next_confirmation(self) -> Order | None:
        if self.plan.spec.confirm is None or not self._answered or self._budget.spent:
            return None
        if self._confirming is None:
            self._confirming = iter(confirm_orders(self.plan, self._finished))
        return next((order for order in self._confirming if not self._is_done(order)), None)

    def _order(self, phase: str, role: str, architecture: Architecture, genotype: Genotype | None = None,
               note: dict[str, object] | None = None) -> Order:  # fmt: skip
        seed, epochs = self.plan.spec.strategy.seed, self.plan.epochs
        key = evaluation_key(self.plan, architecture, seed=seed, epochs=epochs, test=False)
        return Order(phase, role, architecture, seed, epochs, key, genotype, note or {})  # type: ignore[arg-type]

    def _is_done(self, order: Order) -> bool:
        return (order.phase, order.architecture.key, order.seed) in self._done

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self.ledger.progress(phase=phase)

    def _take(self, order: Order, result: Result) -> None:
        """Learns from a finished trial."""
        self._ended.append(True)
        self._note(order.trial_id, order.phase, order.architecture, result.metrics)
        self.ledger.progress(**self._standing())

    def _note(self, trial_id: str, phase: str, architecture: Architecture, metrics: dict[str, float]) -> None:
        if phase == "confirm":
            return
        self._explored_well += phase == "explore"
        cost = self._table.architecture(architecture)
        known = {**metrics, "params": float(cost.params), "macs": float(cost.macs)}
        if not all(objective.metric in known for objective in self._bounds.objectives):
            return
        values = tuple(known[objective.metric] for objective in self._bounds.objectives)
        self._tell(architecture, values)
        self._finished[architecture.key] = (architecture, values)
        self._add_to_front(values)
        top1 = known.get("top1", -1.0)
        if self._best is None or top1 > self._best[0]:
            self._best = (top1, trial_id)

    def _standing(self) -> dict[str, Any]:
        """Hypervolume and best trial so far; nothing before the first result."""
        if self._best is None:
            return {}
        return {"hypervolume": self._bounds.hypervolume(self._values), "best_trial_id": self._best[1]}

    def _add_to_front(self, values: tuple[float, ...]) -> None:
        """Keeps only the front, which is all that the hypervolume needs."""
        self._values.append(values)
        keep = front(minimised(self._values, self._bounds.objectives))
        self._values = [v for v, kept in zip(self._values, keep, strict=True) if kept]

    def _tell(self, architecture: Architecture, values: tuple[float, ...] | None) -> None:
        """Controls outside the space are no news for the strategy."""
        try:
            genotype = self.plan.space.genotype(architecture)
        except SpecError:
            return
        self._strategy.tell(Outcome(genotype, values))

    def _restore(self) -> None:
        """Takes in the rows that earlier attempts have left; what they had not finished is started again."""
        rows, architectures = self.ledger.trials()
        for row in rows:
            architecture = Architecture.from_json(architectures[row.architecture_key].document)
            self._number = max(self._number, row.number)
            self._done[row.phase, row.architecture_key, row.seed] = row.status
            self._explored += row.phase == "explore"
            if row.status in ("succeeded", "reused"):
                self._ended.append(True)
                self._budget.spend(row.seconds or 0.0 if row.status == "succeeded" else 0.0)
                self._note(row.id, row.phase, architecture, _metrics(row))
                continue
            self._tell(architecture, None)
            if row.status in ("running", "cancelled"):
                self._again.append(self._unfinished(row, architecture))
            else:
                self._ended.append(False)
                if row.status == "failed" and row.error:
                    self._last_failure = Failure(row.error["kind"], row.error["message"])

    def _unfinished(self, row: Trial, architecture: Architecture) -> Order:
        proposal = dict(row.proposal or {})
        genotype = proposal.pop("genotype", None)
        key = evaluation_key(
            self.plan, architecture, seed=row.seed, epochs=row.epochs_planned, test=row.phase == "confirm"
        )
        return Order(
            cast(Phase, row.phase),
            cast(Role, row.role),
            architecture,
            row.seed,
            row.epochs_planned,
            key,
            genotype and tuple(genotype),
            proposal,
            trial_id=row.id,
            number=row.number,
            retries=row.retries,
        )


def _metrics(row: Trial) -> dict[str, float]:
    own = {name: getattr(row, name) for name in ("top1", "top5", "loss", "test_top1", "latency_ms")}
    return {name: value for name, value in own.items() if value is not None}
