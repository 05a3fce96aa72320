"""Fair shares: every slot used, nobody without one, more for a higher priority, nothing for who asks for less."""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import cache

from hypothesis import assume, given
from hypothesis import strategies as st

from workers.shares import EPSILON, MOST_DEMANDED, Wish, demand, left_over, quotas, slots

CPU = {"cpus": 1.0, "gpus": 0.0}
names = st.text("abcdefgh", min_size=1, max_size=3)
one_cpu = st.builds(Wish, st.just(1.0), st.just(0.0), st.integers(0, 9), st.none() | st.integers(1, 12))
shapes = st.sampled_from(
    [(1.0, 0.0), (2.0, 0.0), (1.0, 0.25), (1.0, 1 / 3), (1.0, 0.4), (0.5, 0.6), (1.0, 1.0), (4.0, 2.0), (0.5, 0.0)]
)
any_wish = st.builds(
    lambda shape, priority, most: Wish(*shape, priority, most), shapes, st.integers(0, 9), st.none() | st.integers(1, 9)
)
node = st.builds(
    lambda cpus, gpus: {"cpus": float(cpus), "gpus": float(gpus)}, st.integers(0, 16), st.sampled_from([0, 0, 1, 2, 8])
)


def cpus(number: int) -> list[dict[str, float]]:
    return [{"cpus": float(number), "gpus": 0.0}]


def best_by_brute_force(slots: int, wishes: dict[str, Wish]) -> set[tuple[int, ...]]:
    """Every way to give `slots` away that wastes none, keeps the bounds and has the least Σ n² / w."""
    order = sorted(wishes)
    ranges = [range(1, min(slots, wishes[name].concurrent or slots) + 1) for name in order]
    ways = [way for way in itertools.product(*ranges) if sum(way) <= slots]
    full = max(map(sum, ways))
    ways = [way for way in ways if sum(way) == full]

    def cost(way: tuple[int, ...]) -> Fraction:
        return sum(
            (Fraction(n * n, wishes[name].priority + 1) for n, name in zip(way, order, strict=True)), Fraction(0)
        )

    least = min(map(cost, ways))
    return {way for way in ways if cost(way) == least}


@given(st.integers(1, 9), st.dictionaries(names, one_cpu, min_size=1, max_size=4))
def test_shares_are_those_of_a_search_over_all_ways(slots: int, wishes: dict[str, Wish]) -> None:
    if slots < len(wishes):
        assert quotas(cpus(slots), wishes) == dict.fromkeys(wishes, 1)
        return
    shares = quotas(cpus(slots), wishes)
    assert tuple(shares[name] for name in sorted(shares)) in best_by_brute_force(slots, wishes)


@given(st.integers(1, 4096), st.dictionaries(names, one_cpu, min_size=1, max_size=30))
def test_sums_bounds_and_order(slots: int, wishes: dict[str, Wish]) -> None:
    shares = quotas(cpus(slots), wishes)
    assert shares.keys() == wishes.keys()
    assert all(1 <= shares[name] <= (wish.concurrent or slots) for name, wish in wishes.items())
    asked = sum(min(wish.concurrent or slots, slots) for wish in wishes.values())
    assert sum(shares.values()) == max(len(wishes), min(slots, asked))
    for one, other in itertools.permutations(wishes, 2):
        freer = wishes[one].concurrent is None
        if freer and wishes[one].priority > wishes[other].priority:
            assert shares[one] >= shares[other]


@given(st.integers(30, 4096), st.dictionaries(names, st.integers(0, 9), min_size=1, max_size=30))
def test_shares_are_proportional_to_priority_plus_one(slots: int, priorities: dict[str, int]) -> None:
    shares = quotas(cpus(slots), {name: Wish(1, 0, priority) for name, priority in priorities.items()})
    for one, other in itertools.permutations(shares, 2):
        # handing a slot from one to the other would not bring the two nearer to their weights
        mine, theirs = priorities[one] + 1, priorities[other] + 1
        if shares[one] > 1:
            assert (2 * shares[one] - 1) * theirs <= (2 * shares[other] + 1) * mine


@given(st.lists(node, max_size=6), st.dictionaries(names, any_wish, min_size=1, max_size=8))
def test_no_slot_stays_idle_on_a_mixed_cluster(nodes: list[dict[str, float]], wishes: dict[str, Wish]) -> None:
    shares = quotas(nodes, wishes)
    assert all(1 <= shares[name] <= (wish.concurrent or 10**6) for name, wish in wishes.items())
    used = [
        sum((n if n > 1 else 0) * getattr(wishes[name], kind) for name, n in shares.items())
        for kind in ("cpus", "gpus")
    ]
    assert used[0] <= sum(n["cpus"] for n in nodes) + EPSILON * 1000
    assert used[1] <= sum(n["gpus"] for n in nodes) + EPSILON * 1000
    if len(wishes) == 1:
        (name, wish) = next(iter(wishes.items()))
        assert shares[name] == max(1, min(slots(nodes, wish.cpus, wish.gpus), wish.concurrent or 10**6))


@cache
def can_be_packed(gpus: tuple[int, ...], trials: tuple[int, ...]) -> bool:
    """By trying every way: whether trials (in 1/10 000 of a GPU, the largest first) find room at once on `gpus`, each a
    fraction of one of them or whole ones that nobody else uses."""
    if not trials:
        return True
    first, rest = trials[0], trials[1:]
    whole, part = divmod(first, 10_000)
    if not part:
        free = [index for index, left in enumerate(gpus) if left == 10_000]
        taken = set(free[:whole])
        return len(taken) == whole and can_be_packed(tuple(g for i, g in enumerate(gpus) if i not in taken), rest)
    ways = {tuple(sorted((*gpus[:i], left - part, *gpus[i + 1 :]))) for i, left in enumerate(gpus) if left >= part}
    return any(can_be_packed(way, rest) for way in ways)


of_a_gpu = st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.3333, 0.4, 0.5, 0.6, 0.75, 0.9999, 1.0, 2.0])


@given(st.integers(0, 3), of_a_gpu)
def test_slots_are_as_many_as_can_be_packed_on_separate_gpus(gpus: int, each: float) -> None:
    most, size = 0, round(each * 10_000)
    while can_be_packed((10_000,) * gpus, (size,) * (most + 1)):
        most += 1
    node = {"cpus": 64.0, "gpus": float(gpus)}
    assert slots([node], 1, each) == most
    assert quotas([node], {"a": Wish(1, each)}) == {"a": max(1, most)}


@given(st.integers(1, 4), st.lists(of_a_gpu, min_size=1, max_size=4))
def test_what_is_given_away_can_be_packed_on_separate_gpus(gpus: int, each: list[float]) -> None:
    node = {"cpus": 64.0, "gpus": float(gpus)}
    assume(slots([node], 1, max(each)) >= len(each))  # else some hold a first slot in vain
    wishes = {str(index): Wish(1, one, 5, 4) for index, one in enumerate(each)}
    sizes = [round(wishes[name].gpus * 10_000) for name, n in quotas([node], wishes).items() for _ in range(n)]
    assert can_be_packed((10_000,) * gpus, tuple(sorted(sizes, reverse=True)))


def test_a_fraction_comes_from_one_gpu() -> None:
    node = {"cpus": 64.0, "gpus": 4.0}
    assert [slots([node], 1, each) for each in (0.3, 0.4, 0.6, 0.75)] == [12, 8, 4, 4]
    beside = left_over([node], [Wish(1, 0.6), Wish(1, 0.3), Wish(1, 1)])
    assert slots(beside, 1, 1) == 2  # the fractions are on one
    assert slots(beside, 1, 0.4) == 4  # not 5, though 2.1 GPUs are left
    assert slots(left_over([node], [Wish(1, 0.6)] * 3), 1, 2) == 0


def test_what_one_search_leaves_goes_to_the_others() -> None:
    assert quotas(cpus(8), {"a": Wish(1, 0, 5, 2), "b": Wish(1, 0, 5)}) == {"a": 2, "b": 6}
    assert quotas(cpus(9), {"a": Wish(1, 0, 9, 1), "b": Wish(1, 0, 1), "c": Wish(1, 0, 1)}) == {"a": 1, "b": 4, "c": 4}


def test_searches_with_and_without_gpus_fill_the_cluster_together() -> None:
    node = {"cpus": 8.0, "gpus": 2.0}
    assert quotas([node], {"gpu": Wish(1, 1), "cpu": Wish(1, 0)}) == {"gpu": 2, "cpu": 6}
    assert quotas([node, CPU], {"gpu": Wish(1, 0.25)}) == {"gpu": 8}
    # trials without GPUs leave the node with GPUs to those that need them
    both = [{"cpus": 2.0, "gpus": 2.0}, {"cpus": 2.0, "gpus": 0.0}]
    assert quotas(both, {"a": Wish(1, 0, 5, 2), "z": Wish(1, 1)}) == {"a": 2, "z": 2}


def test_equal_searches_share_equally() -> None:
    equal = Wish(1, 0)
    assert sorted(quotas(cpus(8), {"a": equal, "b": equal}).values()) == [4, 4]
    assert sorted(quotas(cpus(2), {"a": equal, "b": equal, "c": equal}).values()) == [1, 1, 1]
    assert quotas(cpus(10), {"a": Wish(1, 0, 9), "b": Wish(1, 0, 0)}) == {"a": 9, "b": 1}
    assert quotas([], {"a": equal}) == {"a": 1}
    assert quotas(cpus(4), {}) == {}


def test_slots_count_what_fits_on_each_node() -> None:
    nodes = [{"cpus": 8.0, "gpus": 2.0}, {"cpus": 3.0, "gpus": 0.0}, {"cpus": 0.0, "gpus": 0.0}]
    assert slots(nodes, 1, 0) == 11
    assert slots(nodes, 4, 0) == 2  # 3 CPUs of the second node are of no use
    assert slots(nodes, 1, 0.25) == 8
    assert slots(nodes, 1, 1 / 3) == 6
    assert slots(nodes, 16, 0) == 0
    assert slots(nodes, 1, 4) == 0


def test_a_node_that_sees_another_store_has_no_slots() -> None:
    lost = {"cpus": 8.0, "gpus": 0.0, "storage_problem": "another store"}
    assert slots([lost, *cpus(2)], 1, 0) == 2
    assert quotas([lost, *cpus(2)], {"a": Wish(1, 0)}) == {"a": 2}


def test_demand_is_what_searches_could_use_and_begins_with_one_trial_of_each() -> None:
    gpu, cpu = {"cpus": 1, "gpus": 0.5, "concurrent": 2}, {"cpus": 2, "gpus": 0, "concurrent": None}
    assert demand([]) == []
    assert demand([(gpu, 9), (cpu, 3)]) == [
        {"CPU": 1, "GPU": 0.5}, {"CPU": 2}, {"CPU": 1, "GPU": 0.5}, {"CPU": 2}, {"CPU": 2},
    ]  # fmt: skip
    assert len(demand([(cpu, 10**6), (gpu, 1)])) == MOST_DEMANDED
    assert demand([(cpu, 10**6), (gpu, 1)])[1] == {"CPU": 1, "GPU": 0.5}


def test_what_is_left_beside_one_trial_of_each_search() -> None:
    nodes = [{"cpus": 16.0, "gpus": 2.0}]
    gpu, cpu = Wish(1, 1), Wish(1, 0)
    assert slots(left_over(nodes, [gpu]), 1, 1) == 1
    assert slots(left_over(nodes, [gpu, gpu]), 1, 1) == 0  # a third would wait for a GPU that nobody gives back
    assert slots(left_over(nodes, [gpu, gpu, cpu]), 1, 0) == 13
    assert left_over([], [cpu]) == []
