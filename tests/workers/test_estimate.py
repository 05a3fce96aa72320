"""The estimate against closed forms, and against a list scheduler that places one trial after the other."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.estimate import Batch, time_left


def scheduled(running: list[float], batches: list[Batch], slots: int, until: float) -> float:
    """One trial at a time onto the slot that is free first."""
    last = max(running, default=0.0)
    free = sorted(running)[-slots:]
    free += [0.0] * (slots - len(free))
    for batch in batches:
        if batch.waits:
            free = [max(last, *free)] * slots
        heapq.heapify(free)
        for _ in range(batch.count):
            if free[0] >= until:
                break
            end = free[0] + batch.seconds
            heapq.heapreplace(free, end)
            last = max(last, end)
        last = max(last, *free)
    return last


@pytest.mark.parametrize(
    ("running", "batches", "slots", "until", "expected"),
    [
        ([], [], 3, math.inf, 0.0),
        ([], [Batch(1, 7.0)], 4, math.inf, 7.0),
        ([], [Batch(64, 1.0)], 2, math.inf, 32.0),
        ([], [Batch(65, 1.0)], 2, math.inf, 33.0),
        ([0.25, 0.5], [Batch(2, 1.0)], 2, math.inf, 1.5),
        ([10.0], [Batch(3, 1.0)], 2, math.inf, 10.0),  # the long one outlasts all others
        ([], [Batch(10**6, 2.0)], 1000, math.inf, 2000.0),
        ([3.0, 1.0], [Batch(4, 2.0, waits=True)], 2, math.inf, 3.0 + 4.0),  # confirmation waits for the front
        ([], [Batch(100, 10.0)], 5, 25.0, 30.0),  # what has begun before the budget is spent comes to its end
        ([], [Batch(100, 10.0)], 5, 0.0, 0.0),
        ([4.0], [Batch(100, 10.0)], 1, 4.0, 4.0),
        ([1.0, 2.0, 3.0], [Batch(1, 5.0)], 1, math.inf, 8.0),  # the share has shrunk from 3 slots to 1
    ],
)
def test_closed_forms(running, batches, slots, until, expected):
    assert time_left(running, batches, slots, until) == pytest.approx(expected)


_SECONDS = st.sampled_from([0.5, 1.0, 1.5, 3.0, 7.25])


@settings(max_examples=300, deadline=None)
@given(
    running=st.lists(st.sampled_from([0.25, 0.5, 1.0, 6.5, 20.0]), max_size=8),
    batches=st.lists(st.builds(Batch, st.integers(0, 40), _SECONDS, st.booleans()), max_size=4),
    slots=st.integers(1, 6),
    until=st.sampled_from([math.inf, 2.1, 9.9, 30.1]),
)
def test_it_is_the_end_of_a_list_schedule(running, batches, slots, until):
    assert time_left(running, batches, slots, until) == pytest.approx(scheduled(running, batches, slots, until))
