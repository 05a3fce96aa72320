"""Fair shares: every slot used, nobody without one, more for a higher priority."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.shares import quotas, slots

searches = st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 9), min_size=1, max_size=30)


@given(st.integers(1, 4096), searches)
def test_every_slot_is_given_away_and_everybody_gets_one(slots: int, priorities: dict[str, int]) -> None:
    shares = quotas(slots, priorities)
    assert shares.keys() == priorities.keys()
    assert min(shares.values()) >= 1
    if slots >= len(priorities):
        # those below one slot are lifted to one, which may overbook by less than one slot each
        assert slots <= sum(shares.values()) <= slots + len(priorities)


@given(st.integers(1, 4096), searches)
def test_a_higher_priority_never_gets_less_than_a_lower_one(slots: int, priorities: dict[str, int]) -> None:
    shares = quotas(slots, priorities)
    for one, its in priorities.items():
        for other, theirs in priorities.items():
            if its > theirs:
                assert shares[one] >= shares[other] - 1


def test_equal_searches_share_equally() -> None:
    assert sorted(quotas(8, {"a": 5, "b": 5}).values()) == [4, 4]
    assert sorted(quotas(2, {"a": 5, "b": 5, "c": 5}).values()) == [1, 1, 1]
    assert quotas(10, {"a": 9, "b": 0}) == {"a": 9, "b": 1}
    assert quotas(4, {}) == {}


def test_slots_count_what_fits_on_each_node() -> None:
    nodes = [{"cpus": 8.0, "gpus": 2.0}, {"cpus": 3.0, "gpus": 0.0}, {"cpus": 0.0, "gpus": 0.0}]
    assert slots(nodes, 1, 0) == 11
    assert slots(nodes, 4, 0) == 2  # 3 CPUs of the second node are of no use
    assert slots(nodes, 1, 0.25) == 8
    assert slots(nodes, 1, 1 / 3) == 6
    assert slots(nodes, 16, 0) == 0
    assert slots(nodes, 1, 4) == 0
