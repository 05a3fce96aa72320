"""How many trials are to share a GPU: chosen from measurements, by pure functions.

Trials of small networks leave much of a GPU idle, so that two of them give more images per second together than one
after the other; from some number on they only take each other's time, and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COUNTS = (1, 2, 4, 8)
"""Numbers of trials that are tried on one GPU, in order."""
LEAST_GAIN = 1.1
"""What one number must give over the number before, in images per second of all trials together."""
SPARE_MEMORY = 1.2
"""Of what the measured trial took: other architectures of the space may take more, and memory comes in blocks."""


@dataclass(frozen=True)
class Measured:
    """trials: at once; images_per_second: of all of them together; memory: bytes that one of them took at most."""

    trials: int
    images_per_second: float
    memory: int


@dataclass(frozen=True)
class Choice:
    """trials: on one GPU; reason: why not more, in a sentence."""

    trials: int
    reason: str


def following(measured: Sequence[Measured], memory: int, cpus: float) -> int | Choice:
    """The number of trials to measure next, or the choice where nothing is left to be measured.

    measured: so far, in the order of COUNTS. memory: bytes of the device. cpus: how many trials the CPUs that come with
    one GPU are enough for.
    """
    if not measured:
        return COUNTS[0]
    last, best = measured[-1], measured[-1].trials
    if len(measured) > 1:
        before = measured[-2]
        gain = last.images_per_second / before.images_per_second
        if gain < LEAST_GAIN:
            words = f"{last.trials} trials at once give {gain:.2f} × the images per second of {before.trials}"
            return Choice(before.trials, f"{words}, which is less than {LEAST_GAIN:g} ×.")
    if len(measured) == len(COUNTS):
        return Choice(best, f"More than {best} are not tried.")
    more = COUNTS[len(measured)]
    needed = more * max(found.memory for found in measured) * SPARE_MEMORY
    if needed > memory:
        has = f"{memory / 2**30:.3g} GiB"
        return Choice(best, f"{more} trials would need {needed / 2**30:.3g} GiB of memory, and the device has {has}.")
    if more > cpus:
        enough = max(1, int(cpus))
        return Choice(best, f"The CPUs of its node are enough for {enough} trial{'s' * (enough > 1)} on each GPU.")
    return more


def without_memory(measured: Sequence[Measured], tried: int) -> Choice:
    """The choice where memory ran out while `tried` trials were measured."""
    best = measured[-1].trials if measured else 1
    return Choice(best, f"Memory ran out with {tried} at once.")
