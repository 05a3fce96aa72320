"""Each family against what its paper prints, and against small hand-made cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from search.architecture import Architecture, Backbone, Task
from search.cost import CostTable
from search.errors import SpecError
from search.models import build
from search.sites import Site

IMAGENET, CIFAR10 = Task((3, 224, 224), 1000), Task((3, 32, 32), 10)


@pytest.mark.parametrize(
    ("name", "options", "task", "params", "within"),
    [
        ("wide_resnet28_10", {}, CIFAR10, 36.5, 0.05),  # Zagoruyko 2016, table 4
        ("resnext29_8x64d", {}, CIFAR10, 34.4, 0.05),  # Xie 2017, table 7
        ("preact_resnet110", {}, CIFAR10, 1.7, 0.05),  # Zagoruyko 2016, table 5
        ("preact_resnet164", {}, CIFAR10, 1.7, 0.05),
        ("mobilenet_v1", {}, IMAGENET, 4.2, 0.05),  # Howard 2017, table 6
        ("mobilenet_v1", {"width": 0.75}, IMAGENET, 2.6, 0.05),
        ("mobilenet_v1", {"width": 0.5}, IMAGENET, 1.3, 0.05),
        ("mobilenet_v1", {"width": 0.25}, IMAGENET, 0.5, 0.05),
        ("mobilenet_v2", {}, IMAGENET, 3.4, 0.11),  # Sandler 2018, table 4
        ("vgg16_bn", {}, IMAGENET, 138, 0.5),  # Simonyan 2015, table 2
        ("densenet121", {}, IMAGENET, 7.98, 0.005),  # torchvision's documentation
    ],
)
def test_parameters(name: str, options: dict[str, Any], task: Task, params: float, within: float) -> None:
    """Million parameters as printed."""
    assert CostTable(Backbone.make(name, **options), task).backbone().params / 1e6 == pytest.approx(params, abs=within)


@pytest.mark.parametrize(
    ("name", "options", "mmacs"),
    [
        ("mobilenet_v1", {}, 569),
        ("mobilenet_v1", {"width": 0.75}, 325),
        ("mobilenet_v1", {"width": 0.5}, 149),
        ("mobilenet_v1", {"width": 0.25}, 41),  # Howard 2017, table 6
        ("mobilenet_v2", {}, 300),  # Sandler 2018, table 4
    ],
)
def test_macs(name: str, options: dict[str, Any], mmacs: float) -> None:
    """Million multiply–adds as printed."""
    assert CostTable(Backbone.make(name, **options), IMAGENET).backbone().macs / 1e6 == pytest.approx(mmacs, abs=1)


def make(name: str, shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Any:
    return build(Architecture.make(Backbone.make(name, **options), {}), Task(shape, 10)).eval()


class Double(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values


def doubled(model: Any, site: Site) -> Any:
    for parent, name in model.slots(site):
        setattr(parent, name, Double())
    return model


@pytest.mark.parametrize("position", ["residual", "pre", "identity", "post"])
@pytest.mark.parametrize("site", [(1, 1), (1, 2), (2, 1)])
def test_preact_positions(position: str, site: tuple[int, int]) -> None:
    """First block (activation shared, no projection), a plain one, and one with a projection."""
    model = make("preact_resnet110", width=4)
    block = model.stage(site[0])[site[1] - 1]
    x = torch.rand(2, 4, 6, 6) - 0.5
    active = torch.relu(block.bn1(x))
    skip = active if site != (1, 2) else x
    if block.shortcut is not None:
        skip = block.shortcut(skip)

    def branch(values: torch.Tensor) -> torch.Tensor:
        return block.conv2(torch.relu(block.bn2(block.conv1(values))))

    expected = {
        "residual": 2 * branch(active) + skip,
        "pre": branch(2 * active) + skip,
        "identity": branch(active) + 2 * skip,
        "post": 2 * (branch(active) + skip),
    }[position]
    doubled(model, Site(*site, position))  # type: ignore[arg-type]
    torch.testing.assert_close(block(x), expected)


def test_mobilenet_v1_has_two_points_and_thirteen_pointwise_convolutions() -> None:
    stages = Backbone.make("mobilenet_v1").stages((3, 224, 224))
    blocks = [block for stage in stages for block in stage.blocks]
    assert [len(stage.blocks) for stage in stages] == [1, 2, 2, 6, 2]
    assert len(blocks) == 13
    assert [point.shape for point in blocks[1].points["residual"]] == [(64, 56, 56), (128, 56, 56)]
    assert all(block.points["conv"][0].conv.kernel_size == 1 for block in blocks)  # type: ignore[union-attr]


def test_mobilenet_v2_has_an_identity_only_where_it_adds() -> None:
    stages = Backbone.make("mobilenet_v2").stages((3, 224, 224))
    assert [len(stage.blocks) for stage in stages] == [1, 2, 3, 7, 4]
    blocks = [block for stage in stages for block in stage.blocks]
    assert sum("identity" in block.points for block in blocks) == 10
    assert stages[3].points(Site(4, 7, "stage_end"))[0].shape == (96, 14, 14)


def test_densenet_residual_is_the_growth() -> None:
    stages = Backbone.make("densenet121").stages((3, 224, 224))
    assert [len(stage.blocks) for stage in stages] == [6, 12, 24, 16]
    assert stages[0].points(Site(1, 3, "residual"))[0].shape == (32, 56, 56)
    assert stages[0].points(Site(1, 3, "pre"))[0].shape == (128, 56, 56)
    assert [s.points(Site(s.number, len(s.blocks), "stage_end"))[0].channels for s in stages] == [256, 512, 1024, 1024]


def test_densenet_layers_see_everything_before_them() -> None:
    model = make("densenet121", growth=4)
    block = model.features.denseblock1
    x = torch.rand(2, 8, 5, 5)
    first = block.denselayer1(x)
    second = block.denselayer2(torch.cat([x, first], 1))
    assert torch.equal(block(x)[:, :16], torch.cat([x, first, second], 1))


def test_vgg_residual_follows_the_non_linearity_and_stage_end_precedes_the_pooling() -> None:
    model = make("vgg16_bn", head="linear")
    seen: list[torch.Tensor] = []
    for site in (Site(1, 2, "residual"), Site(1, 2, "stage_end")):
        ((parent, name),) = model.slots(site)
        getattr(parent, name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 3, 32, 32)
    model(x)
    expected = model.features[:6](x)
    assert [torch.equal(value, expected) for value in seen] == [True, True]


def test_vgg_refuses_images_that_its_poolings_use_up() -> None:
    with pytest.raises(SpecError, match="too small"):
        Backbone.make("vgg16_bn").stages((3, 31, 64))


def test_a_seed_gives_one_wide_resnet() -> None:
    first, second = (torch.manual_seed(3) and make("wide_resnet28_10", widen=1).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
