"""How the steps of one trial are computed: eager, compiled, or as CUDA graphs; chosen while it trains.

The first steps are eager and timed. Then `workers.training.compiling` decides, and what was compiled is timed too: it
goes again where it is no faster. Only the forward and backward pass of training are compiled; the network that is
judged, timed and stored stays as it is, so that its state has the same names.

Graphs come from torch.compile's "reduce-overhead", not from `torch.cuda.make_graphed_callables`: that one would show
the network batches beforehand, which moves the statistics of batch norms, and fuses nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workers.training.compiling import RECORD, Decision, Mode, Record, StepTime, decide, fitting_mode

Wish = Literal["auto", "never", "always"]

WARM_STEPS = 5
"""Eager steps that are not timed: the first ones allocate, and choose algorithms."""
TIMED_STEPS = 10
"""Steps of each mode that are timed. The device is waited for in each of them, which no other step does."""
COMPILED_WARM_STEPS = 3
"""Compiled steps that count as compiling: the first compiles, the next record the graphs."""
LEAST_GAIN = 1.02
"""A compiled step that is not faster by so much is not worth the memory that its graphs hold."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """What was used, as it is stored with the trial. seconds: None where it was not measured. failure: why what was
    chosen could not be done."""

    mode: Mode
    reason: str
    compile_seconds: float = 0.0
    eager_step_seconds: float | None = None
    compiled_step_seconds: float | None = None
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class Executor:
    """Computes the training steps of one network. kind: what networks have in common that cost alike to compile.

    backend: as torch.compile names it. measure: whether `auto` measures at all; by default where there is a GPU: on a
    processor compiling takes minutes for a gain of few per cent, and results would no longer repeat bit by bit. alone:
    whether no other process trains the network too.
    """

    def __init__(self, network: nn.Module, wish: Wish, kind: str, *, record: Record = RECORD,
                 backend: str = "inductor", measure: bool | None = None, threads: int = 1,
                 alone: bool = True) -> None:  # fmt: skip
        self._network = self._forward = network
        self._device = next(network.parameters()).device
        self._wish = wish
        self._kind = kind
        self._record = record
        self._backend = backend
        self._threads = threads
        self._left = 0
        self._resting = False
        self._times: list[StepTime] = []
        self._seen = 0
        self._ended: float | None = None
        self._compiled = False
        self._work: Callable[[Callable[[], Tensor]], Tensor] | None = self._eager_step
        self.used = Execution("eager", "No step has been trained yet.")
        if not alone:
            self._settle("eager", "Several processes train it together.")
        elif wish == "never":
            self._settle("eager", "The request says so (compile: never).")
        elif wish == "auto" and not (self._device.type == "cuda" if measure is None else measure):
            self._settle("eager", "On a processor only where the request says so (compile: always).")

    def begin(self, left: int, *, frozen: bool) -> None:
        """An epoch begins, with `left` steps to the trial's end. frozen: whether part of the network rests, which is
        trained eagerly: it would be compiled a second time when it wakes up."""
        self._left = left
        self._ended = None
        self._resting = frozen
        if self._work == self._eager_step:
            now = "Its backbone is frozen." if frozen else "The trial has no more steps than are measured at first."
            self.used = Execution("eager", now)

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's answer to a training batch."""
        if self.used.mode == "cuda_graphs":
            # what the step before has left in the memory of the graphs may go
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        answer: Tensor = self._forward(inputs)
        return answer

    def step(self, work: Callable[[], Tensor]) -> Tensor:
        """Does one step of training, which calls `forward`; what it returns."""
        self._left -= 1
        return work() if self._work is None or self._resting else self._work(work)

    def give_up(self, reason: str) -> bool:
        """Goes on eagerly for good; whether it was compiled until now."""
        was_compiled = self.used.mode != "eager"
        if was_compiled:
            self._settle("eager", reason, failure=reason)
        return was_compiled

    def close(self) -> None:
        """Lets go of what was compiled: torch keeps it for all networks of a class, and stops compiling that class
        after a few."""
        self._forward = self._network
        if self._compiled:
            torch.compiler.reset()
            self._compiled = False

    def _eager_step(self, work: Callable[[], Tensor]) -> Tensor:
        """Times eager steps, then chooses how to go on."""
        if self._wish == "always" and self._device.type != "cuda":  # there is no choice to be made
            self._compile("compiled", "The request says so (compile: always).")
            return self._first_compiled_step(work)
        loss = self._timed(work)
        if len(self._times) == TIMED_STEPS:
            self._choose()
        return loss

    def _choose(self) -> None:
        steps = _medians(self._times)
        mode = fitting_mode(steps, graphs=self._device.type == "cuda")
        decision = decide(steps, self._left, mode, self._record.expected(self._kind, mode))
        if self._wish == "always":
            decision = Decision(mode, "The request says so (compile: always).")
        self.used = Execution("eager", decision.reason, eager_step_seconds=steps.total)
        if decision.mode == "eager":
            self._settle("eager", decision.reason)
        else:
            self._compile(decision.mode, decision.reason)

    def _compile(self, mode: Mode, reason: str) -> None:
        """From the next step on; torch compiles when it sees the first batch."""
        import torch._inductor.config as inductor

        inductor.compile_threads = self._threads  # each is a process: no more than the trial has CPUs
        self._compiled = True
        how = {"mode": "reduce-overhead"} if mode == "cuda_graphs" else {}
        self._forward = torch.compile(self._network, backend=self._backend, dynamic=False, **how)  # type: ignore[call-overload]
        self.used = Execution(mode, reason, eager_step_seconds=self.used.eager_step_seconds)
        self._times, self._seen, self._ended = [], 0, None
        self._work = self._first_compiled_step

    def _first_compiled_step(self, work: Callable[[], Tensor]) -> Tensor:
        """Compiles on the way. Whatever goes wrong, the step is done eagerly, as if nothing had been tried: an error of
        the network itself comes again then."""
        buffers = [buffer.clone() for buffer in self._network.buffers()]
        random = torch.get_rng_state(), torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        started = time.perf_counter()
        try:
            loss = work()
            self._wait()
        except Exception as error:  # noqa: BLE001 - recorded with its class and words, and the step is done again
            problem = f"Compiling failed: {type(error).__name__}: {_in_short(error)}"
        else:
            if self.used.mode != "eager":  # memory may have run out in it
                self._spent(time.perf_counter() - started)
                self._work = self._compiled_step
            return loss
        log.warning("compile.failed", extra={"kind": self._kind, "problem": problem})
        self._record.add(self._kind, self.used.mode, time.perf_counter() - started, speedup=1.0)
        self._spent(time.perf_counter() - started)
        self._settle("eager", problem, failure=problem)
        with torch.no_grad():
            for buffer, before in zip(self._network.buffers(), buffers, strict=True):
                buffer.copy_(before)
        torch.set_rng_state(random[0])
        if random[1] is not None:
            torch.cuda.set_rng_state(random[1], self._device)
        return work()

    def _compiled_step(self, work: Callable[[], Tensor]) -> Tensor:
        """Times compiled steps, and goes back to eager ones where they are not faster."""
        if self._seen < COMPILED_WARM_STEPS - 1:  # the first one is past
            self._seen += 1
            started = time.perf_counter()
            loss = work()
            self._wait()
            self._spent(time.perf_counter() - started)
            return loss
        loss = self._timed(work, warm=0)
        if len(self._times) == TIMED_STEPS and self.used.mode != "eager":
            self._compare(_medians(self._times).total)
        return loss

    def _compare(self, compiled: float) -> None:
        used, eager = self.used, self.used.eager_step_seconds
        self._work = None
        cost = max(0.0, used.compile_seconds - COMPILED_WARM_STEPS * compiled)
        self.used = Execution(used.mode, used.reason, cost, eager, compiled)
        if eager is None:
            return
        self._record.add(self._kind, used.mode, cost, eager / compiled)
        if eager / compiled < LEAST_GAIN and self._wish == "auto":
            words = f"Compiled steps took {1000 * compiled:.3g} ms, eager ones {1000 * eager:.3g} ms."
            self._settle("eager", words)

    def _timed(self, work: Callable[[], Tensor], warm: int = WARM_STEPS) -> Tensor:
        """Does the step and, after the first `warm` of its mode, keeps how long it took."""
        self._wait()
        started = time.perf_counter()
        loss = work()
        issued = time.perf_counter()
        self._wait()
        ended = time.perf_counter()
        waited = 0.0 if self._ended is None else started - self._ended
        self._ended = ended
        self._seen += 1
        if self._seen > warm:
            self._times.append(StepTime(ended - started, issued - started, waited))
        return loss

    def _settle(self, mode: Mode, reason: str, failure: str | None = None) -> None:
        """The mode to the trial's end. What graphs hold of the memory is given back where they are given up."""
        used = self.used
        seconds = used.compile_seconds, used.eager_step_seconds, used.compiled_step_seconds
        self.used = Execution(mode, reason, *seconds, failure)
        self._work = None
        if mode == "eager":
            self.close()

    def _spent(self, seconds: float) -> None:
        used = self.used
        self.used = Execution(used.mode, used.reason, used.compile_seconds + seconds, used.eager_step_seconds)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _medians(times: list[StepTime]) -> StepTime:
    return StepTime(median(t.total for t in times), median(t.issuing for t in times), median(t.waiting for t in times))


def _in_short(error: Exception) -> str:
    """The first two lines: torch names its backend in the first and what that said in the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or "no message"
