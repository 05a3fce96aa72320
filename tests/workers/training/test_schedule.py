"""Learning rates against torch's own schedulers and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from search.recipes import Recipe
from workers.training.schedule import learning_rates


def torch_rates(make: Any, steps: int, lr: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs() -> None:
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50), 50, 0.3)
    assert learning_rates(Recipe(lr=0.3, schedule="cosine", warmup=0.0), 50) == pytest.approx(expected)


def test_step_is_torchs() -> None:
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [30, 45], 0.2), 60, 0.1)
    recipe = Recipe(lr=0.1, schedule="step", milestones=(0.5, 0.75), step_factor=0.2, warmup=0.0)
    assert learning_rates(recipe, 60) == pytest.approx(expected)


def test_one_cycle_rises_and_falls_in_straight_lines() -> None:
    rates = learning_rates(Recipe(lr=1.0, schedule="onecycle", warmup=0.5), 8)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_constant_after_warm_up() -> None:
    assert learning_rates(Recipe(lr=2.0, schedule="constant", warmup=0.4), 5) == pytest.approx(
        [1.0, 2.0, 2.0, 2.0, 2.0]
    )


@pytest.mark.parametrize("schedule", ["cosine", "step", "onecycle", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.99])
def test_every_step_learns(schedule: str, steps: int, warmup: float) -> None:
    rates = learning_rates(Recipe.model_validate({"lr": 0.5, "schedule": schedule, "warmup": warmup}), steps)
    assert len(rates) == steps
    assert all(0 < rate <= 0.5 for rate in rates)
