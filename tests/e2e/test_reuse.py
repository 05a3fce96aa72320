"""Slots stay in use where trials are shorter than the start of a process, whatever happens to a process."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import House, Ray, until
from tests.e2e.house import opened_house

Lines = list[dict[str, Any]]

MARKERS = itertools.count(7_000)
SECONDS = 0.3
"""Of a trial. A process that starts imports for longer than that even on an idle machine."""
SHARED = 24
"""Trials for which the two processes are watched once both are at work."""
SPEC = {
    "name": "short trials",
    "backbone": {"name": "resnet8", "width": 16},
    "space": {"modules": ["none", "se", "cbam"], "reduction": [2, 4, 8, 16]},
    "training": {"epochs": 1},
    "controls": False,
    "budget": {"trials": 700},
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, ray_node: Ray) -> Iterator[House]:
    home = tmp_path_factory.mktemp("home")
    (home / "attune.db").write_bytes(sqlite_template.read_bytes())
    with opened_house(f"sqlite:///{home / 'attune.db'}", home, ray_node) as opened:
        yield opened


def trained(lines: Lines) -> list[int]:
    """The process of each epoch, in order."""
    return [line["pid"] for line in lines if line["event"] == "epoch"]


def since_trouble(lines: Lines) -> Lines:
    """What came after the one thing that was to go wrong."""
    at = next((index for index, line in enumerate(lines) if line["event"] == "trouble"), len(lines))
    return lines[at:]


def shared(pids: list[int]) -> list[int]:
    """From the first epoch of the second process on."""
    second = next((index for index, pid in enumerate(pids) if pid != pids[0]), len(pids))
    return pids[second:]


def watch(house: House, **trouble: Any) -> Lines:
    """The journal of a search, from the trouble on, up to when two processes have trained SHARED trials together.

    TimeoutError when the search comes to its end, or the time does, and they have not.
    """
    assert house.ray is not None
    ray, marker = house.ray, next(MARKERS)
    options = {"name": "troubles", "seconds": SECONDS, "marker": marker, **trouble}
    search = house.client.submit({**SPEC, "dataset": options})

    def seen() -> Lines:
        lines = ray.journal(marker)
        return since_trouble(lines) if trouble else lines

    try:
        until(lambda: len(shared(trained(seen()))) >= SHARED, 240, every=0.5)
    finally:
        house.client.cancel(search["id"])
    return seen()


def assert_shared_evenly(pids: list[int]) -> None:
    together = shared(pids)
    counts = Counter(together)
    assert len(counts) == 2, counts
    assert min(counts.values()) >= 0.35 * len(together), counts
    assert max(len(list(run)) for _, run in itertools.groupby(together)) <= 5, "one of the two stood still"


@pytest.mark.slow
def test_the_second_process_comes_up_and_stays_in_use(house: House) -> None:
    assert_shared_evenly(trained(watch(house)))


@pytest.mark.slow
def test_a_process_that_died_is_replaced_and_both_stay_in_use(house: House) -> None:
    lines = watch(house, trouble="crash", sites=2, times=1)
    pids = trained(lines)
    assert lines[0]["pid"] not in pids, "it should have died"
    assert_shared_evenly(pids)


@pytest.mark.slow
def test_a_process_whose_trial_raised_stays_in_use(house: House) -> None:
    lines = watch(house, trouble="raise", sites=2, times=1)
    pids = trained(lines)
    assert lines[0]["pid"] in pids, "a process that could go on was thrown away"
    assert_shared_evenly(pids)
