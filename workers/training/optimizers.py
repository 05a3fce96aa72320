"""The recipe's optimiser over a network's parameters: decayed or not, pretrained or new."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from search.recipes import Recipe


def make_optimizer(
    network: nn.Module, recipe: Recipe, pretrained: Collection[str] = frozenset()
) -> torch.optim.Optimizer:
    """SGD or AdamW in up to four groups; a group's `scale` multiplies the schedule's learning rate.

    Vectors and scalars (biases, norms) are decayed only if the recipe says so. pretrained: names of parameters that
    come from initial weights, which learn at `backbone_lr`.
    """
    # pretrained ones apart also where they learn at the same rate: a fused SGD cannot take parameters that have rested
    # together with others
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decay = recipe.weight_decay if parameter.ndim > 1 or recipe.decay_vectors else 0.0
        groups.setdefault((name in pretrained, decay), []).append(parameter)
    listed = [
        {"params": members, "weight_decay": decay, "scale": recipe.backbone_lr if old else 1.0}
        for (old, decay), members in groups.items()
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(listed, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    return torch.optim.SGD(listed, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def freeze(network: nn.Module, pretrained: Collection[str], frozen: bool) -> None:
    """Whether the pretrained parameters stay as they are; the statistics of norms that have such parameters do too."""
    for name, parameter in network.named_parameters():
        if name in pretrained:
            parameter.requires_grad_(not frozen)


def frozen_norms(network: nn.Module) -> Sequence[nn.Module]:
    """Norms with running statistics whose own parameters are frozen; they are to be kept in eval mode."""
    norms = (m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [m for m in norms if m.weight is not None and not m.weight.requires_grad]
