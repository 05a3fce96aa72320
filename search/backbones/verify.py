"""Checks a backbone of one's own: that its closed-form geometry is what its network does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search.architecture import Architecture, Backbone, Task
from search.models import build
from search.sites import ConvGeometry, Point, Shape, Site


def verify(name: str, image: Shape, classes: int = 7, **options: Any) -> None:
    """Runs the backbone on an image of C × H × W on the meta device; ValueError with everything that differs.

    Every site must be run exactly once, with the shape of its point; slots hold an `nn.Identity`, or for `conv` the
    convolution that is described.
    """
    backbone = Backbone.make(name, **options)
    with torch.device("meta"):
        network: Any = build(Architecture.make(backbone, {}), Task(image, classes)).eval()
    points = {
        (Site(stage.number, number, position), index): point
        for stage in backbone.stages(image)
        for number, block in enumerate(stage.blocks, start=1)
        for position, listed in block.points.items()
        for index, point in enumerate(listed)
    }
    problems, seen = [], _watch(network, [site for site, index in points if index == 0])
    with torch.no_grad():
        logits = network(torch.empty(2, *image, device="meta"))
    if logits.shape != (2, classes):
        problems.append(f"logits are {tuple(logits.shape)} and not {(2, classes)}")
    for key in points.keys() | seen.keys():
        shapes = [shape for _, shape in seen.get(key, [])]
        if key not in points or shapes != [points[key].shape]:
            problems.append(f"{key[0]}, point {key[1] + 1}: runs on {shapes}, described is {points.get(key)}")
        problems += [f"{key[0]}: {wrong}" for slot, _ in seen.get(key, []) if (wrong := _wrong(slot, points.get(key)))]
    if problems:
        raise ValueError("\n".join(sorted(problems)))


def _watch(network: Any, sites: list[Site]) -> dict[tuple[Site, int], list[tuple[nn.Module, Shape]]]:
    """Fills, while the network runs, what the slots are and the shapes of their inputs."""
    seen: dict[tuple[Site, int], list[tuple[nn.Module, Shape]]] = {}
    for site in sites:
        for index, (parent, name) in enumerate(network.slots(site)):

            def note(module: nn.Module, inputs: tuple[Tensor, ...], key: tuple[Site, int] = (site, index)) -> None:
                _, channels, height, width = inputs[0].shape
                seen.setdefault(key, []).append((module, (channels, height, width)))

            slot = getattr(parent, name, None)
            if isinstance(slot, nn.Module):
                slot.register_forward_pre_hook(note)
    return seen


def _wrong(slot: nn.Module, point: Point | None) -> str | None:
    if point is None or (point.conv is None and isinstance(slot, nn.Identity)):
        return None
    if point.conv is None:
        return f"the slot holds a {type(slot).__name__}, not an Identity"
    if not isinstance(slot, nn.Conv2d) or isinstance(slot.padding, str):
        return f"the slot holds {slot}, not a convolution with padding in pixels"
    pairs = (slot.kernel_size, slot.stride, slot.padding, slot.dilation)
    if any(pair[0] != pair[1] for pair in pairs):
        return f"{slot} is not the same in both directions"
    kernel, stride, padding, dilation = (pair[0] for pair in pairs)
    found = ConvGeometry(
        slot.in_channels, slot.out_channels, kernel, stride, padding, dilation, slot.groups, slot.bias is not None
    )
    return None if found == point.conv else f"the convolution is {found}, described is {point.conv}"
