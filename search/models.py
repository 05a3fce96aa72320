"""From an architecture to a network: the backbone first, then the modules put into its slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import nn

from search.architecture import Architecture, Module, Task
from search.sites import Point, Site, find_stage


class Slotted(Protocol):
    """What a backbone's network offers beside forward."""

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]: ...


def build(architecture: Architecture, task: Task) -> nn.Module:
    """The network of `architecture`: images N × C × H × W to logits N × classes.

    Random numbers come from torch's default generator. The whole backbone is drawn before any module, so
    one seed gives the same backbone weights whatever attention is placed. Raises SpecError for
    what does not fit.
    """
    architecture.check(task.input_shape)
    backbone = architecture.backbone
    network = cast(nn.Module, backbone.info.build(backbone.options, task.input_shape[0], task.classes))
    stages = backbone.stages(task.input_shape)
    for site, modules in architecture.placements:
        points = find_stage(stages, site.stage).points(site)
        for (parent, name), point in zip(cast(Slotted, network).slots(site), points, strict=True):
            setattr(parent, name, _fill(getattr(parent, name), modules, point))
    return network


def _fill(slot: nn.Module, modules: Sequence[Module], point: Point) -> nn.Module:
    """What goes into `slot`; a module that replaces a convolution starts from its weights."""
    built = [cast(nn.Module, module.info.build(module.options, point)) for module in modules]
    for module in built:
        _inherit(slot, module)
    return built[0] if len(built) == 1 else nn.Sequential(*built)


@torch.no_grad()
def _inherit(replaced: nn.Module, module: nn.Module) -> None:
    """Copies the parameters of `replaced` that `module` has too, by name and shape."""
    own = dict(module.named_parameters())
    for name, value in replaced.named_parameters():
        if name in own and own[name].shape == value.shape:
            own[name].copy_(value)
