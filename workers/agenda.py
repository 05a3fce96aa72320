"""What a search is still to do, in order: trials to take up again, controls, the strategy's proposals, confirmation."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterator

from search.architecture import Architecture
from search.plan import SearchPlan
from search.space import Genotype
from search.strategies.base import Strategy
from workers.budget import Budget
from workers.confirmation import confirm_orders
from workers.estimate import Batch
from workers.evaluation import evaluation_key
from workers.orders import Order
from workers.standing import Standing

RECHECK_SECONDS = 0.5
"""How often a result that another search is training is looked for."""

EpochsLeft = Callable[[str, int, int], float]
"""How many epochs a trial may be expected to train still, from its phase, its epochs and those done."""


class Next(enum.Enum):
    """Instead of an order: nothing for the moment, or nothing any more."""

    WAIT = "wait"
    DONE = "done"


class Agenda:
    """Hands out orders. answered: whether the search has results, without which there is nothing to confirm."""

    def __init__(self, plan: SearchPlan, strategy: Strategy, budget: Budget, standing: Standing,
                 answered: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        self.exhausted = False
        self.explored = 0
        self._plan = plan
        self._strategy = strategy
        self._budget = budget
        self._standing = standing
        self._answered = answered
        self._clock = clock
        self._again: deque[Order] = deque()
        self._elsewhere: deque[tuple[float, Order]] = deque()
        self._done: set[tuple[str, str, int]] = set()
        self._proposed = 0
        self._planned = self._planned_orders()
        self._confirming: deque[Order] | None = None

    def restore(self, phase: str, architecture_key: str, seed: int) -> None:
        """A trial that is there already, whatever has come of it: it is not planned again."""
        self._done.add((phase, architecture_key, seed))
        self._proposed += phase != "confirm"
        self.explored += phase == "explore"

    def again(self, order: Order) -> None:
        """To be started again before anything else."""
        self._again.append(order)

    def elsewhere(self, order: Order) -> None:
        """Another search trains it just now: to be asked for again in a moment."""
        self._elsewhere.append((self._clock(), order))

    def waiting(self) -> list[Order]:
        """Trials that have a row and no process: empty from now on."""
        orders = [*self._again, *(order for _, order in self._elsewhere)]
        self._again.clear()
        self._elsewhere.clear()
        return orders

    def next(self, live: int) -> Order | Next:
        """The next order, while `live` trials run."""
        return self.taken_up() or self.fresh(live)

    def taken_up(self) -> Order | None:
        """A trial to be started again, or asked for again: those go first."""
        if self._again:
            return self._again.popleft()
        if self._elsewhere and self._clock() - self._elsewhere[0][0] >= RECHECK_SECONDS:
            return self._elsewhere.popleft()[1]
        return None

    @property
    def fresh_epochs(self) -> int:
        """How many epochs the next trial has that was not started before."""
        confirm = self._plan.spec.confirm
        confirmed = None if confirm is None or self._confirming is None else confirm.epochs
        return confirmed or self._plan.epochs

    def fresh(self, live: int) -> Order | Next:
        """The next one that was not started before."""
        order = next(self._planned, None)
        if order is not None:
            return order
        pending = bool(live or self._elsewhere)
        if self._confirming is None and pending:
            return Next.WAIT  # what is confirmed depends on their results
        order = self._next_confirmation()
        if order is None:
            return Next.WAIT if pending else Next.DONE
        return order

    def batches(self, seconds_per_epoch: float, epochs_left: EpochsLeft) -> list[Batch]:
        """What is left to start, as far as it can be known, for an estimate of the time that it takes."""
        taken_up = [*self._again, *(order for _, order in self._elsewhere)]
        found = [
            Batch(1, max(1.0, epochs_left(o.phase, o.epochs, o.epochs_done)) * seconds_per_epoch) for o in taken_up
        ]
        exploring = 0 if self.exhausted else min(
            self._plan.spec.budget.trials - self.explored, self._plan.space.count - self.explored
        )  # fmt: skip
        planned = sum(
            not self._is_done("controls", a.key, self._plan.spec.strategy.seed) for _, a in self._plan.controls
        )
        found.append(Batch(planned, self._plan.epochs * seconds_per_epoch))
        found.append(Batch(max(0, exploring), epochs_left("explore", self._plan.epochs, 0) * seconds_per_epoch))
        confirm = self._plan.spec.confirm
        if confirm is not None:
            epochs = confirm.epochs or self._plan.epochs
            found.append(Batch(self._confirmations_left(), epochs * seconds_per_epoch, waits=self._confirming is None))
        return found

    def _confirmations_left(self) -> int:
        confirm = self._plan.spec.confirm
        if confirm is None:
            return 0
        if self._confirming is not None:
            return len(self._confirming)
        most = confirm.top + len(self._plan.reconfirmed)
        wanted = (confirm.baseline_seeds or confirm.seeds) + most * confirm.seeds
        return max(0, wanted - sum(phase == "confirm" for phase, _, _ in self._done))

    def _planned_orders(self) -> Iterator[Order]:
        """Controls, then what the strategy proposes while the budget lasts."""
        for role, architecture in self._plan.controls:
            order = self._order("controls", role, architecture)
            if not self._is_done(order.phase, architecture.key, order.seed):
                self._done.add((order.phase, architecture.key, order.seed))
                self._proposed += 1
                yield order
        while self.explored < self._plan.spec.budget.trials and not self._budget.spent:
            # numbered without confirmations, so that a larger budget later and at once give the same architectures
            proposal = self._strategy.ask(self._proposed + 1)
            if proposal is None:
                self.exhausted = True
                return
            self._proposed += 1
            self.explored += 1
            architecture = self._plan.space.architecture(proposal.genotype)
            mark = {"by": "previous"} if proposal.genotype in self._plan.previous else {}
            yield self._order("explore", "explore", architecture, proposal.genotype, proposal.note | mark)

    def _next_confirmation(self) -> Order | None:
        if self._plan.spec.confirm is None or not self._answered() or self._budget.spent:
            return None
        if self._confirming is None:
            wanted = confirm_orders(self._plan, self._standing.finished)
            self._confirming = deque(o for o in wanted if not self._is_done("confirm", o.architecture.key, o.seed))
        return self._confirming.popleft() if self._confirming else None

    def _order(self, phase: str, role: str, architecture: Architecture, genotype: Genotype | None = None,
               note: dict[str, object] | None = None) -> Order:  # fmt: skip
        seed, epochs = self._plan.spec.strategy.seed, self._plan.epochs
        key = evaluation_key(self._plan, architecture, seed=seed, epochs=epochs, test=False)
        return Order(phase, role, architecture, seed, epochs, key, genotype, note or {})  # type: ignore[arg-type]

    def _is_done(self, phase: str, architecture_key: str, seed: int) -> bool:
        return (phase, architecture_key, seed) in self._done
