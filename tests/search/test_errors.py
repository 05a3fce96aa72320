"""Problems, their paths, and what is quoted of a request."""

from __future__ import annotations

import pytest

from search.errors import Problem, SpecError, shown


def test_every_problem_is_told_with_its_field_and_choices() -> None:
    error = SpecError([Problem("a.0", "Is odd.", ("2", "4")), Problem("", "Is empty.")])
    assert str(error) == "a.0: Is odd. Valid choices: 2, 4.\nIs empty."
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(("field", "path"), [("b.0", "space.b.0"), ("", "space")])
def test_a_path_is_put_below_another(field: str, path: str) -> None:
    error = SpecError.one(field, "Is odd.", ["2"]).under("space")
    assert error.problems == (Problem(path, "Is odd.", ("2",)),)


def test_an_error_without_a_problem_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        SpecError([])


@pytest.mark.parametrize("value", ["x" * 100_000, ["x"] * 1000, "\u202e" * 100, 10**100])
def test_what_is_shown_is_short_and_printable(value: object) -> None:
    assert len(shown(value)) <= 60
    assert shown(value).isprintable()


def test_short_values_are_shown_whole() -> None:
    assert shown("se") == "'se'"
    assert shown([1, True]) == "[1, True]"
