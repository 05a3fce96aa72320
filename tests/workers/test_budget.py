"""Hours and GPU-hours on a clock that only the test moves."""

from __future__ import annotations

import math

import pytest

from search.spec import SearchSpec
from workers.attempts import LATE_SECONDS, Attempts
from workers.budget import ActiveTime, Budget


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def budget(
    clock: Clock, attempts: Attempts, active: ActiveTime | None = None, gpus: float = 0.0, **limits: float
) -> Budget:
    asked = {"name": "t", "dataset": {"name": "tiny"}, "budget": limits, "resources": {"gpus": gpus}}
    return Budget(SearchSpec.parse(asked), active or ActiveTime(clock=clock), attempts)


def test_hours_count_the_time_at_work_of_all_drivers_and_no_wait_for_a_first_slot() -> None:
    clock = Clock()
    active = ActiveTime(3000.0, clock)
    limited = budget(clock, Attempts(clock), active, hours=1.0)
    clock.now += 86_400.0
    assert (active.seconds, limited.seconds_left(slots=9)) == (3000.0, 600.0)
    active.begin()
    clock.now += 599.0
    active.begin()  # the second trial
    assert not limited.spent
    clock.now += 1.0
    assert limited.spent


def test_gpu_hours_count_every_attempt_while_it_holds_its_gpu() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    attempts.restore("earlier", 1200.0)  # 0.25 GPU each
    limited = budget(clock, attempts, gpus=0.25, gpu_hours=0.5)  # 7,200 slot seconds
    attempts.begin("a")
    clock.now += 1000.0
    attempts.begin("b")
    clock.now += 1000.0
    assert attempts.total == 1200.0 + 2000.0 + 1000.0
    attempts.end("a")  # killed, say
    attempts.begin("a")  # and tried again
    clock.now += 500.0
    assert (attempts.busy("a"), attempts.busy("b"), attempts.busy("earlier")) == (2500.0, 1500.0, 1200.0)
    assert limited.seconds_left(slots=2) == (7200.0 - 5200.0) / 2
    clock.now += 999.0
    assert not limited.spent
    clock.now += 1.0
    assert limited.spent


def test_without_limits_and_without_gpus_nothing_is_ever_spent() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    free = budget(clock, attempts)
    on_cpus = budget(clock, attempts, gpu_hours=0.001)
    attempts.begin("a")
    clock.now += 1e9
    assert free.seconds_left(1) == on_cpus.seconds_left(1) == math.inf


def test_the_total_does_not_drift_over_many_attempts() -> None:
    clock = Clock(1e6)
    attempts = Attempts(clock)
    for number in range(5000):
        attempts.begin(str(number))
        clock.now += 0.01
        if number >= 10:
            attempts.end(str(number - 10))
    assert attempts.total == pytest.approx(sum(attempts.busy(str(number)) for number in range(5000)), rel=1e-9)


def test_silence_counts_from_the_last_report_and_not_while_the_driver_was_deaf() -> None:
    clock = Clock()
    attempts = Attempts(clock)

    def silent_after(seconds: float) -> list[str]:
        for _ in range(int(seconds)):
            clock.now += 1.0
            found = attempts.silent(100.0)
        return found

    attempts.begin("a")
    attempts.begin("b")
    assert silent_after(60) == []
    attempts.hear("b", epoch=1)
    clock.now += 500.0  # the driver waited for its database: reports may be waiting for it in turn
    assert silent_after(40 + LATE_SECONDS) == []
    assert silent_after(5) == ["a"]
    attempts.end("a")
    assert silent_after(60) == ["b"]
