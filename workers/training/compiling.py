"""Whether compiling a network pays for what is left of a trial: decided from measured times, by a pure function.

What is expected of it comes from what this process has measured on earlier trials of the same kind of network, and is a
guess before that. One that did not pay is not tried again for its kind in this process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Mode = Literal["eager", "compiled", "cuda_graphs"]
"""How steps are computed: operation by operation; by kernels that torch.compile has fused; or by the same, recorded
once as CUDA graphs and played back."""

LAUNCH_BOUND = 0.8
"""Share of a step's time from which on the CPU, which issues it, is what it waits for: only then a graph, which is
issued at once, saves more than fused kernels do."""
DATA_BOUND = 0.2
"""Time between two steps, as a share of a step's, from which on faster steps would only wait for longer. Less of it is
the loop's own work, and noise."""


@dataclass(frozen=True)
class Expected:
    """What compiling costs and brings. seconds: once; speedup: time of an eager step over that of a compiled one;
    trials: measured on so many, 0: a guess."""

    seconds: float
    speedup: float
    trials: int = 0


GUESSES: dict[Mode, Expected] = {"compiled": Expected(60.0, 1.25), "cuda_graphs": Expected(75.0, 1.6)}
"""Before anything is measured. Rough on purpose: they only decide the first trial of a kind."""


@dataclass(frozen=True)
class StepTime:
    """Of a single step, or medians over several, in seconds. total: until the device is done; issuing: until the CPU
    has issued it, which is all of it where the CPU is the device; waiting: between two steps, for images."""

    total: float
    issuing: float
    waiting: float = 0.0


@dataclass(frozen=True)
class Decision:
    """mode: how to go on; reason: why, in a sentence for the trial's page."""

    mode: Mode
    reason: str


@dataclass
class Record:
    """What compiling has cost and brought in this process, by kind of network and mode."""

    found: dict[tuple[str, Mode], list[Expected]] = field(default_factory=dict)

    def add(self, kind: str, mode: Mode, seconds: float, speedup: float) -> None:
        """speedup: 1 where it failed, as nothing was gained."""
        self.found.setdefault((kind, mode), []).append(Expected(seconds, speedup, 1))

    def expected(self, kind: str, mode: Mode) -> Expected:
        """Medians of the trials of this kind, or the guess."""
        known = self.found.get((kind, mode), [])
        if not known:
            return GUESSES[mode]
        return Expected(median(e.seconds for e in known), median(e.speedup for e in known), len(known))


RECORD = Record()
"""Of this process, which trains trial after trial."""


def fitting_mode(steps: StepTime, *, graphs: bool) -> Mode:
    """Which of the two ways of compiling suits these steps. graphs: whether the device has CUDA graphs."""
    return "cuda_graphs" if graphs and steps.issuing >= LAUNCH_BOUND * steps.total else "compiled"


def decide(steps: StepTime, left: int, mode: Mode, expected: Expected) -> Decision:
    """Whether to compile in `mode` with `left` steps to go: where the time expected to be saved is more than what
    compiling is expected to take."""
    if steps.waiting > DATA_BOUND * steps.total:
        share = steps.waiting / (steps.waiting + steps.total)
        return Decision("eager", f"Training waits {share:.0%} of its time for images, which compiling does not change.")
    saved = left * steps.total * (1 - 1 / expected.speedup)
    source = f"measured on {expected.trials} here" if expected.trials else "a guess"
    pays = saved > expected.seconds
    reason = (
        f"{left} steps of {1000 * steps.total:.3g} ms were left: compiling was expected to save "
        f"{max(0.0, saved):.3g} s and to take {expected.seconds:.3g} s ({source})."
    )
    return Decision(mode if pays else "eager", reason)
