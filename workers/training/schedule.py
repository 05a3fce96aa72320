"""Learning rates in closed form, so that step k needs no history and resuming needs no scheduler state."""

from __future__ import annotations

import math

from search.recipes import Recipe


def learning_rates(recipe: Recipe, steps: int) -> list[float]:
    """The learning rate of each of `steps` steps."""
    return [recipe.lr * _factor(recipe, step, steps) for step in range(steps)]


def _factor(recipe: Recipe, step: int, steps: int) -> float:
    warm = recipe.warmup * steps
    if step + 1 < warm:
        return (step + 1) / warm
    # the share of the steps after warm-up; the last step is just short of 1, so that it still learns
    done = (step - warm) / (steps - warm) if step > warm else 0.0
    match recipe.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "onecycle":
            return 1.0 - done
        case "step":
            passed = sum(step >= milestone * steps for milestone in recipe.milestones)
            return float(recipe.step_factor**passed)
