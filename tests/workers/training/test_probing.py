"""Processes that train side by side, for real, on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.workers.training.conftest import MakeRequest
from workers.training.classification import ClassificationSession
from workers.training.probing import ProbeError, measure


def test_processes_at_once_are_counted_together(make_request: MakeRequest) -> None:
    request = make_request()
    for trials in (1, 2):
        pace = measure(request, trials, seconds=0.5)
        assert pace.images_per_second > 0
        assert 50 * 2**20 < pace.memory < pace.available  # of a process that has imported torch


@pytest.mark.slow
def test_the_memory_is_what_the_network_takes(make_request: MakeRequest) -> None:
    """A process that trains a larger network takes more of it."""
    wide = {"backbone": {"name": "resnet8", "width": 256}, "placements": {}}
    small = measure(make_request(), 1, seconds=0.1)
    large = measure(make_request(architecture=wide), 1, seconds=0.1)
    assert large.memory > small.memory + 50 * 2**20


def test_what_goes_wrong_is_said(make_request: MakeRequest) -> None:
    with pytest.raises(ProbeError, match="the data has changed"):
        measure(make_request(fingerprint="0" * 64), 2, seconds=0.1)


def test_a_probe_trains_no_longer_than_asked_and_then_stops_at_the_end_of_its_data(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request(epochs=1))
    seen = []
    speed = session.pace(3600.0, lambda: seen.append("ready"))  # one epoch of digits: a second, not an hour
    assert seen == ["ready"]
    assert speed > 0


def test_two_probes_of_one_request_train_the_same_thing(make_request: MakeRequest) -> None:
    request = replace(make_request(), epochs=1)
    sessions = [ClassificationSession(request) for _ in range(2)]
    for session in sessions:
        session.pace(0.0, lambda: None)
    first, second = (session.weights() for session in sessions)
    assert all(first[name].equal(second[name]) for name in first)
