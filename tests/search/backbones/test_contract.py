"""What every registered backbone keeps: its closed-form geometry is what its network does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.architecture import Architecture, Backbone, Task
from search.backbones import BACKBONES
from search.errors import SpecError
from search.models import build
from search.sites import ConvGeometry, Point, Shape, Site

NAMES = BACKBONES.names()
SIZES = [(3, 64, 64), (1, 65, 97), (4, 224, 160)]


def sites(backbone: Backbone, image: Shape) -> Iterator[tuple[Site, tuple[Point, ...]]]:
    for stage in backbone.stages(image):
        for number, block in enumerate(stage.blocks, start=1):
            for position, points in block.points.items():
                yield Site(stage.number, number, position), points


def network(backbone: Backbone, image: Shape, classes: int = 7) -> nn.Module:
    with torch.device("meta"):
        return build(Architecture.make(backbone, {}), Task(image, classes)).eval()


def observed(model: Any, image: Shape, where: list[Site]) -> dict[tuple[Site, int], Shape]:
    """The input shapes that the slots see in a forward pass."""
    seen: dict[tuple[Site, int], Shape] = {}
    for site in where:
        for index, (parent, name) in enumerate(model.slots(site)):

            def note(_: nn.Module, inputs: tuple[Tensor, ...], key: tuple[Site, int] = (site, index)) -> None:
                assert key not in seen, f"{key} runs twice"
                seen[key] = tuple(inputs[0].shape[1:])  # type: ignore[assignment]

            getattr(parent, name).register_forward_pre_hook(note)
    with torch.no_grad():
        model(torch.empty(2, *image, device="meta"))
    return seen


@pytest.mark.parametrize("image", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_geometry_is_what_the_network_does(name: str, image: Shape) -> None:
    backbone = Backbone.make(name)
    expected = dict(sites(backbone, image))
    seen = observed(network(backbone, image), image, list(expected))
    assert seen == {(site, i): p.shape for site, points in expected.items() for i, p in enumerate(points)}


@pytest.mark.parametrize("name", NAMES)
def test_slots_hold_identities_and_the_described_convolutions(name: str) -> None:
    backbone, image = Backbone.make(name), (3, 64, 64)
    model: Any = network(backbone, image)
    for site, points in sites(backbone, image):
        slots = [getattr(parent, name) for parent, name in model.slots(site)]
        assert len(slots) == len(points)
        for slot, point in zip(slots, points, strict=True):
            if site.position == "conv":
                assert geometry_of(slot) == point.conv
            else:
                assert isinstance(slot, nn.Identity)
                assert point.conv is None


def geometry_of(conv: nn.Module) -> ConvGeometry:
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(conv.padding, tuple)
    for pair in (conv.kernel_size, conv.stride, conv.padding, conv.dilation):
        assert pair[0] == pair[1]
    return ConvGeometry(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        conv.stride[0],
        conv.padding[0],
        conv.dilation[0],
        conv.groups,
        conv.bias is not None,
    )


@pytest.mark.parametrize("name", NAMES)
def test_stages_count_from_one_and_end_at_their_last_block(name: str) -> None:
    stages = Backbone.make(name).stages((3, 64, 64))
    assert [stage.number for stage in stages] == list(range(1, len(stages) + 1))
    for stage in stages:
        ends = ["stage_end" in block.points for block in stage.blocks]
        assert ends == [False] * (len(ends) - 1) + [True]


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_the_asked_classes(name: str) -> None:
    image = (3, 64, 64)
    with torch.no_grad():
        logits = network(Backbone.make(name), image, classes=7)(torch.empty(2, *image, device="meta"))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_tiny_images_run_or_are_refused(name: str) -> None:
    backbone, image = Backbone.make(name), (3, 1, 1)
    refused = None
    try:
        backbone.stages(image)
    except SpecError as error:
        refused = error
    if refused is None:
        assert network(backbone, image)(torch.empty(2, *image, device="meta")).shape == (2, 7)
    else:
        assert refused.problems[0].field == "input_shape"
        with pytest.raises(RuntimeError), torch.device("meta"):
            backbone.info.build(backbone.options, 3, 7).eval()(torch.empty(2, *image))
