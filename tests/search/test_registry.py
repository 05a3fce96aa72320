"""Registries: unknown names, double entries, entry points, and options without silent conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import pytest
from pydantic import Field, model_validator

import search.registry
from search.errors import Problem, SpecError
from search.registry import Options, Registry, load_object, parse_options


@dataclass(frozen=True)
class Fruit:
    name: str


def fruits(*names: str) -> Registry[Fruit]:
    registry: Registry[Fruit] = Registry("fruit", "attune.tests.nothing")
    for name in names:
        registry.add(Fruit(name))
    return registry


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(SpecError) as caught:
        fruits("pear", "apple").get("Aple", "bowl.0")
    assert caught.value.problems == (
        Problem("bowl.0", "Unknown fruit 'Aple'. Did you mean 'apple'?", ("apple", "pear")),
    )


def test_an_endless_unknown_name_is_cut() -> None:
    with pytest.raises(SpecError) as caught:
        fruits("pear").get("x" * 1_000_000)
    assert len(str(caught.value)) < 200


def test_a_second_entry_of_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'pear' is registered twice"):
        fruits("pear", "pear")


class Point:
    def __init__(self, found: object) -> None:
        self.found = found

    def load(self) -> object:
        return self.found


def test_entries_of_other_packages_join_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def points(group: str) -> list[Point]:
        asked.append(group)
        return [Point(Fruit("fig")), Point([Fruit("date"), Fruit("lime")])]

    monkeypatch.setattr(search.registry, "entry_points", points)
    registry = fruits("pear")
    assert not asked
    assert registry.names() == ("pear", "fig", "date", "lime")
    assert "fig" in registry
    assert [fruit.name for fruit in registry] == ["pear", "fig", "date", "lime"]
    assert asked == ["attune.tests.nothing"]


def test_objects_are_loaded_by_path() -> None:
    assert load_object("search.errors:SpecError") is SpecError


class Juice(Options):
    amount: int = Field(1, ge=1, le=1000)
    share: float = Field(0.5, gt=0, lt=1)
    glass: Literal["small", "large", 3] = "small"
    ice: Annotated[int, Field(ge=1)] | Literal["none"] = "none"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.amount > 100 and self.glass == "small":
            raise ValueError("So much needs a large glass")
        return self


@pytest.mark.parametrize("value", ["5", True, 1.0, None, [5], {}])
def test_nothing_is_converted_to_an_integer(value: object) -> None:
    with pytest.raises(SpecError) as caught:
        parse_options(Juice, {"amount": value}, "drink")
    message = "Must be a whole number, without quotes and without a decimal point."
    assert caught.value.problems == (Problem("drink.amount", message),)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"amount": 1001}, Problem("d.amount", "Must be at most 1,000.")),
        ({"amount": 0}, Problem("d.amount", "Must be at least 1.")),
        ({"share": 0}, Problem("d.share", "Must be over 0.")),
        ({"share": 1}, Problem("d.share", "Must be under 1.")),
        ({"share": float("nan")}, Problem("d.share", "Must be a finite number.")),
        ({"share": True}, Problem("d.share", "Must be a number, without quotes.")),
        ({"glass": "big"}, Problem("d.glass", "Not one of the valid choices.", ("small", "large", "3"))),
        ({"ice": "much"}, Problem("d.ice", "Must be a whole number, without quotes and without a decimal point, "
                                  "or one of the choices.", ("none",))),
        ({"amount": 101}, Problem("d", "So much needs a large glass.")),
        ({"straw": 1}, Problem("d.straw", "Unknown option.", ("amount", "share", "glass", "ice"))),
        ({"self": 1}, Problem("d.self", "Unknown option.", ("amount", "share", "glass", "ice"))),
    ],
)  # fmt: skip
def test_each_wrong_option_is_one_problem_in_plain_words(values: dict[str, object], problem: Problem) -> None:
    with pytest.raises(SpecError) as caught:
        parse_options(Juice, values, "d")
    assert caught.value.problems == (problem,)


def test_several_wrong_options_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        parse_options(Juice, {"amount": 0, "share": 2, "straw": 1})
    assert [problem.field for problem in caught.value.problems] == ["amount", "share", "straw"]
