"""ResNet against the papers."""

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


def make(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, **options: Any) -> nn.Module:
    return build(Architecture.make(Backbone.make(name, **options), {}), Task(shape, classes))


@pytest.mark.parametrize(("depth", "params"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameters_of_the_cifar_networks(depth: int, params: float) -> None:
    """He 2016, Table 6 (million parameters, shortcuts without any)."""
    table = CostTable(Backbone.make(f"resnet{depth}", shortcut="parameter_free"), Task((3, 32, 32), 10))
    assert table.backbone().params / 1e6 == pytest.approx(params, abs=0.05 if params > 1 else 0.005)


def test_depth_is_the_number_of_layers() -> None:
    for depth in (8, 14, 20):
        model = make(f"resnet{depth}", shortcut="parameter_free")
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth


def test_width_scales_every_stage() -> None:
    stages = Backbone.make("resnet14", width=8).stages((1, 28, 28))
    shapes = [stage.points(Site(stage.number, 2, "stage_end"))[0].shape for stage in stages]
    assert shapes == [(8, 28, 28), (16, 14, 14), (32, 7, 7)]


def test_stride_in_the_first_1x1_and_cifar_stem() -> None:
    first = Backbone.make("resnet50", stride_in_1x1=True).stages((3, 224, 224))[1].blocks[0].points["conv"][0]
    assert (first.height, first.conv and first.conv.stride) == (28, 1)
    second = Backbone.make("resnet50").stages((3, 224, 224))[1].blocks[0].points["conv"][0]
    assert (second.height, second.conv and second.conv.stride) == (56, 2)
    assert Backbone.make("resnet18", stem="cifar").stages((3, 32, 32))[0].blocks[0].points["pre"][0].height == 32


def test_basic_blocks_have_no_1x1_to_stride_in() -> None:
    with pytest.raises(SpecError, match=r"backbone\.stride_in_1x1"):
        Backbone.make("resnet18", stride_in_1x1=True)


@pytest.mark.parametrize("position", ["residual", "pre", "identity", "post"])
def test_positions_of_the_se_paper(position: str) -> None:
    """Each slot, filled with a doubling, gives what the figure of section 6.4 says, worked out by hand."""
    model: Any = make("resnet8", width=4).eval()
    block: Any = model.stage(1)[0]
    x = torch.rand(2, 4, 5, 5)

    def branch(values: torch.Tensor) -> torch.Tensor:
        return block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(values)))))

    expected = {
        "residual": torch.relu(x + 2 * branch(x)),
        "pre": torch.relu(x + branch(2 * x)),
        "identity": torch.relu(2 * x + branch(x)),
        "post": 2 * torch.relu(x + branch(x)),
    }[position]
    ((parent, name),) = model.slots(Site(1, 1, position))  # type: ignore[arg-type]

    class Double(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return 2 * values

    setattr(parent, name, Double())
    assert torch.equal(block(x), expected)


def test_parameter_free_shortcut_subsamples_and_pads() -> None:
    model: Any = make("resnet8", width=4, shortcut="parameter_free")
    x = torch.rand(1, 4, 7, 7)
    out = model.stage(2)[0].downsample(x)
    assert torch.equal(out[:, :4], x[:, :, ::2, ::2])
    assert out.shape == (1, 8, 4, 4)
    assert not out[:, 4:].any()
