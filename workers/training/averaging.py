"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage:
    """What is judged instead of the network. decay: per step, less at first, or the average would be of the start.

    After n steps the decay is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage. Buffers
    (running statistics) are averaged like weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._average = AveragedModel(network, multi_avg_fn=self._blend, use_buffers=True)

    @property
    def network(self) -> nn.Module:
        return self._average.module

    def update(self, network: nn.Module) -> None:
        """Takes in the weights after one step."""
        self._average.update_parameters(network)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._average.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average.load_state_dict(state)

    @torch.no_grad()
    def _blend(self, average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        steps = int(updates)
        decay = min(self._decay, (1 + steps) / (10 + steps))
        if torch.is_floating_point(average[0]):
            torch._foreach_lerp_(list(average), list(current), 1 - decay)
        else:
            for mine, theirs in zip(average, current, strict=True):
                mine.copy_(theirs)  # counters
