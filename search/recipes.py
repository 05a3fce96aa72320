"""Training recipes: how a trial is trained, as data. Every field can be overridden and is stored with the trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from search.registry import Options, Registry, parse_options

Fraction = Annotated[float, Field(gt=0, lt=1)]


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Recipe(Options):
    """All that decides how weights come from images, apart from architecture, data, epochs run and seed."""

    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd", description="SGD with momentum, or AdamW (decoupled weight decay)."
    )
    lr: float = Field(default=0.1, gt=0, le=10, description="Highest learning rate of the schedule.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD; beta 1 of AdamW.")
    nesterov: bool = Field(default=True, description="Nesterov momentum (SGD only; AdamW ignores it by definition).")
    weight_decay: float = Field(
        default=5e-4, ge=0, le=1, description="Weight decay of weights; biases and norms have none."
    )
    batch_size: int = Field(
        default=128, ge=2, le=65_536, description="Images per step; an incomplete last batch is left out."
    )
    schedule: Literal["cosine", "step", "onecycle", "constant"] = Field(
        default="cosine",
        description="Learning rate after warm-up: cosine to 0; × step_factor at milestones; linear to 0; constant.",
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="Share of all steps in which the learning rate rises linearly."
    )
    milestones: Annotated[tuple[Fraction, ...], BeforeValidator(_list_to_tuple)] = Field(
        default=(1 / 3, 2 / 3), description="Schedule `step`: shares of all steps at which the learning rate drops."
    )
    step_factor: float = Field(default=0.1, gt=0, lt=1, description="Schedule `step`: what a milestone multiplies by.")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the target spread over all classes (training only)."
    )
    augment: Literal["none", "shift"] = Field(
        default="none", description="`shift`: each image moved at random, zeros moved in."
    )
    shift_pixels: int = Field(
        default=2, ge=1, le=64, description="Augmentation `shift`: largest move in each direction, in pixels."
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast; weights stay fp32.")
    epochs: int = Field(
        default=8, ge=1, le=10_000, description="Passes over the training images, if the request gives none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        return self


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe with its name. source: paper and section, or how it was tuned."""

    name: str
    title: str
    source: str
    recipe: Recipe


RECIPES: Registry[RecipeInfo] = Registry("recipe", "attune.recipes")

DEFAULT_RECIPE = "quick"

RECIPES.add(
    RecipeInfo(
        name="quick",
        title="A few epochs on small images",
        source="One cycle as in L. Smith and N. Topin, Super-Convergence, 2017 (https://arxiv.org/abs/1708.07120); "
        "lr, batch size and epochs tuned on cluttered-digits with resnet14 at width 8.",
        recipe=Recipe(lr=0.2, batch_size=64, schedule="onecycle", warmup=0.25, label_smoothing=0.1, epochs=5),
    )
)


def resolve(name: str = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None, field: str = "training") -> Recipe:
    """The recipe called `name` with `overrides` put over its fields.

    SpecError names `field`.recipe with the known recipes, or `field`.option with what is wrong with it.
    """
    info = RECIPES.get(name, f"{field}.recipe")
    return parse_options(Recipe, {**info.recipe.model_dump(), **(overrides or {})}, field)
