"""The short form of `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import KINDS, soak
from tests.faults.soak_load import plan

SECONDS = 120.0


def test_the_same_seed_plans_the_same_faults_and_all_kinds_of_them() -> None:
    assert plan(1, SECONDS, KINDS) == plan(1, SECONDS, KINDS)
    assert plan(1, SECONDS, KINDS) != plan(2, SECONDS, KINDS)
    for seed in range(20):
        faults = plan(seed, SECONDS, KINDS)
        assert {fault.kind for fault in faults} == set(KINDS)
        assert all(0 < fault.at < SECONDS for fault in faults)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_minutes_of_random_kills_lose_nothing_double_nothing_and_leave_nothing(tmp_path: Path) -> None:
    figures, wrong = soak(SECONDS, 1, 4, "postgresql", tmp_path)
    assert wrong == []
    assert sum(figures["kills"].values()) >= 6
    assert figures["searches"]["succeeded"] >= 4
