"""Recipes: names and overrides are checked, and everything is written down."""

from __future__ import annotations

from typing import Any

import pytest

from search.errors import SpecError
from search.recipes import RECIPES, Recipe, resolve


def test_every_recipe_survives_json() -> None:
    for info in RECIPES:
        assert Recipe.model_validate(info.recipe.model_dump(mode="json")) == info.recipe


def test_every_field_is_described() -> None:
    assert all(field.description for field in Recipe.model_fields.values())


def test_overrides_go_over_the_named_recipe() -> None:
    recipe = resolve("quick", {"lr": 0.01, "milestones": [0.5]})
    assert recipe.lr == 0.01
    assert recipe.milestones == (0.5,)
    assert recipe.batch_size == resolve("quick").batch_size


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(SpecError) as caught:
        resolve("quik")
    assert caught.value.problems[0].field == "training.recipe"
    assert "quick" in caught.value.problems[0].choices


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"lr": 0}, "training.lr"),
        ({"lr": "0.1"}, "training.lr"),
        ({"lr": float("inf")}, "training.lr"),
        ({"epochs": 1.0}, "training.epochs"),
        ({"batch_size": True}, "training.batch_size"),
        ({"optimizer": "lion"}, "training.optimizer"),
        ({"learning_rate": 0.1}, "training.learning_rate"),
        ({"momentum": 0.0}, "training"),
        ({"milestones": [0.6, 0.3]}, "training"),
        ({"milestones": [1.5]}, "training.milestones.0"),
    ],
)
def test_a_wrong_override_names_its_field(overrides: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve("quick", overrides)
    assert [problem.field for problem in caught.value.problems] == [field]
