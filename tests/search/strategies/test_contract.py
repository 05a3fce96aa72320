"""What every registered strategy keeps: no architecture twice, none that is infeasible, all of a small space, and
the same proposals after a restart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from search.architecture import Backbone
from search.pareto import Objective
from search.registry import parse_options
from search.space import Genotype, SearchSpace
from search.spec import SpaceSpec
from search.strategies import STRATEGIES, base
from search.strategies.base import Outcome, SearchProblem, Strategy

OBJECTIVES = (Objective("top1", "max"), Objective("macs", "min"))
NAMES = STRATEGIES.names()


def everything(genotype: Genotype) -> bool:
    return True


def some(genotype: Genotype) -> bool:
    """41 of 125, in no simple order."""
    return sum(g * 7**i for i, g in enumerate(genotype)) % 3 == 0


def space() -> SearchSpace:
    spec = SpaceSpec(modules=["none", "se"], reduction=[2, 4], pattern=["every", "last"])
    return SearchSpace(spec, Backbone.make("resnet14", width=8), (1, 12, 12))


def strategy(name: str, seed: int = 0, feasible: Callable[[Genotype], bool] = everything,
             points: Iterable[Genotype] = ()) -> Strategy:  # fmt: skip
    info = STRATEGIES.get(name)
    small = {"population": 6} if "population" in info.options.model_fields else {}
    problem = SearchProblem(space(), OBJECTIVES, feasible)
    return info.make(problem, seed, tuple(points), parse_options(info.options, small))


def value(genotype: Genotype) -> tuple[float, ...]:
    """A made-up trial: dearer is better, with a bump."""
    cost = float(sum(genotype))
    return (0.5 + 0.03 * cost + 0.01 * math.sin(sum(g * (i + 2) for i, g in enumerate(genotype))), cost)


Event = tuple[str, Genotype]


def drive(asked: Strategy, steps: int, start: int = 0, told: Callable[[int], bool] = lambda i: True,
          running: list[Genotype] | None = None) -> list[Event]:  # fmt: skip
    """Asks for trials `start` + 1 onwards with up to three running; what ends is told, every fifth as failed."""
    running, events = running if running is not None else [], []
    for number in range(start + 1, start + steps + 1):
        proposal = asked.ask(number)
        if proposal is None:
            events.append(("none", ()))
            continue
        events.append(("asked", proposal.genotype))
        running.append(proposal.genotype)
        if len(running) == 3:
            done = running.pop(0)
            kind = "failed" if sum(done) % 5 == 4 else "done"
            asked.tell(Outcome(done, value(done) if kind == "done" else None))
            events.append((kind, done))
    return events


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("feasible", [everything, some])
def test_a_small_space_is_gone_through_exactly(name: str, feasible: Callable[[Genotype], bool]) -> None:
    wanted = {genotype for genotype in space().enumerate() if feasible(genotype)}
    events = drive(strategy(name, feasible=feasible), len(wanted) + 3)
    asked = [genotype for kind, genotype in events if kind == "asked"]
    assert len(asked) == len(set(asked))
    assert set(asked) == wanted
    assert [kind for kind, _ in events if kind in ("asked", "none")][-3:] == ["none"] * 3


@pytest.mark.parametrize("name", NAMES)
def test_what_it_was_told_is_never_asked_for(name: str) -> None:
    """Controls and the trials of an earlier attempt, in whatever state."""
    told = [genotype for genotype in space().enumerate() if sum(genotype) % 2]
    asked = strategy(name)
    for index, genotype in enumerate(told):
        asked.tell(Outcome(genotype, value(genotype) if index % 3 else None))
    proposed = [g for kind, g in drive(asked, space().count) if kind == "asked"]
    assert sorted(proposed) == sorted(set(space().enumerate()) - set(told))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_restart_goes_on_as_if_nothing_had_happened(name: str, seed: int) -> None:
    """At every trial, a strategy rebuilt from the rows so far proposes what the one that ran on proposes."""
    points = [(4, 4, 4), (0, 0, 0)]
    continued = strategy(name, seed, some, points)
    events = drive(continued, 45)
    numbers = [index for index, (kind, _) in enumerate(events) if kind in ("asked", "none")]
    for number, index in enumerate(numbers, start=1):
        rebuilt = strategy(name, seed, some, points)
        ended = {genotype: kind for kind, genotype in events[:index]}
        # rows come in the order of their numbers, with the state they are in now
        for genotype, kind in ended.items():
            rebuilt.tell(Outcome(genotype, value(genotype) if kind == "done" else None))
        proposal = rebuilt.ask(number)
        assert (("none", ()) if proposal is None else ("asked", proposal.genotype)) == events[index]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_search(name: str) -> None:
    assert drive(strategy(name, 3), 40) == drive(strategy(name, 3), 40)
    if name != "grid":
        assert drive(strategy(name, 3), 40) != drive(strategy(name, 4), 40)


@pytest.mark.parametrize("name", NAMES)
def test_points_come_first_and_once(name: str) -> None:
    points = [(4, 4, 4), (1, 0, 0), (0, 0, 0), (2, 2, 2)]
    asked = strategy(name, feasible=lambda g: g != (1, 0, 0), points=points)
    asked.tell(Outcome((0, 0, 0), (0.5, 0.0)))  # the baseline is a control
    proposals = [asked.ask(number) for number in range(1, space().count)]
    genotypes = [proposal.genotype for proposal in proposals if proposal]
    assert genotypes[:2] == [(4, 4, 4), (2, 2, 2)]
    assert len(set(genotypes)) == len(genotypes) == space().count - 2
    assert (1, 0, 0) not in genotypes


@pytest.mark.parametrize("name", NAMES)
def test_telling_again_changes_nothing(name: str) -> None:
    once, twice = strategy(name), strategy(name)
    for genotype in list(space().enumerate())[:40]:
        once.tell(Outcome(genotype, value(genotype)))
        twice.tell(Outcome(genotype, value(genotype)))
        twice.tell(Outcome(genotype, value(genotype)))
    assert drive(once, 30) == drive(twice, 30)


@pytest.mark.parametrize("name", NAMES)
def test_a_note_can_be_kept_with_the_trial(name: str) -> None:
    asked = strategy(name, points=[(1, 1, 1)])
    for number in range(1, 40):
        proposal = asked.ask(number)
        assert proposal is not None
        assert json.loads(json.dumps(proposal.note)) == proposal.note
        assert proposal.note["by"]
        asked.tell(Outcome(proposal.genotype, value(proposal.genotype)))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_feasible_is_told_as_such(name: str) -> None:
    assert strategy(name, feasible=lambda genotype: False, points=[(0, 0, 0)]).ask(1) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [(math.nan, 1.0), (0.5, math.inf)])
def test_values_that_are_not_numbers_are_a_bug(name: str, bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        strategy(name).tell(Outcome((0, 0, 0), bad))


@pytest.mark.parametrize("name", NAMES)
def test_spaces_too_large_to_list_are_walked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit lowered, the same space is exhausted from neighbour to neighbour."""
    monkeypatch.setattr(base, "ENUMERABLE", 100)
    monkeypatch.setattr(base, "DRAWS", 5)
    asked = [genotype for kind, genotype in drive(strategy(name), 128) if kind == "asked"]
    assert sorted(asked) == sorted(space().enumerate())


def test_random_search_is_uniform() -> None:
    """First proposals over many seeds: each choice of each gene a fifth of the time."""
    first = [strategy("random", seed).ask(1) for seed in range(600)]
    genotypes = np.asarray([proposal.genotype for proposal in first if proposal])
    for gene in genotypes.T:
        counts = np.bincount(gene, minlength=5)
        statistic = float(((counts - 120) ** 2 / 120).sum())
        assert statistic < 4 + 4 * math.sqrt(8)


def test_grid_goes_in_order() -> None:
    asked = [genotype for kind, genotype in drive(strategy("grid"), 125) if kind == "asked"]
    assert asked == list(space().enumerate())


@pytest.mark.parametrize("name", ["random", "nsga2"])
def test_draws_depend_on_the_number_and_not_on_what_is_running(name: str) -> None:
    first = {number: strategy(name).ask(number) for number in range(1, 30)}
    for number, proposal in first.items():
        assert proposal is not None
        after = strategy(name)
        other = next(g for g in space().enumerate() if g != proposal.genotype)
        after.tell(Outcome(other))
        assert after.ask(number) == proposal
    assert len({proposal.genotype for proposal in first.values() if proposal}) > 15
