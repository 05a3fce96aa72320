"""Networks built of architectures: where modules end up, what they start from, and what a seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search.architecture import Architecture, Backbone, Module, Task, site_problems
from search.attention import ATTENTION
from search.errors import SpecError
from search.models import build
from search.sites import Site

TASK = Task((3, 24, 20), 5)
SE = Module.make("se", reduction=4)


def make(name: str = "resnet8", **placed: Any) -> Architecture:
    """placed: modules by site, written stage1_block1_residual."""
    options = {"width": 8} if name == "resnet8" else {}
    sites = {}
    for key, modules in placed.items():
        stage, block, position = key.split("_", 2)
        sites[Site(int(stage[5:]), int(block[5:]), position)] = modules  # type: ignore[arg-type]
    return Architecture.make(Backbone.make(name, **options), sites)


def seeded(architecture: Architecture, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(architecture, TASK)


def test_one_seed_gives_one_backbone_whatever_is_placed() -> None:
    plain = seeded(make()).state_dict()
    placed = seeded(make(stage1_block1_residual=[SE], stage3_block1_stage_end=[SE])).state_dict()
    replaced = seeded(make(stage2_block1_conv=[Module.make("aw", reduction=4)])).state_dict()
    for name, value in plain.items():
        assert torch.equal(placed[name], value)
        assert torch.equal(replaced[name], value), "a replaced convolution hands its kernel on"
    assert not torch.equal(seeded(make(), seed=1).state_dict()["conv1.weight"], plain["conv1.weight"])


def test_modules_at_one_site_apply_in_order() -> None:
    network: Any = seeded(make(stage1_block1_residual=[SE, Module.make("cbam", reduction=4)])).eval()
    first, second = network.stage(1)[0].residual
    assert [type(first).__name__, type(second).__name__] == ["SqueezeExcitation", "CBAM"]
    block, x = network.stage(1)[0], torch.rand(2, 8, 6, 6)
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    torch.testing.assert_close(block(x), torch.relu(second(first(branch)) + x))


def test_a_position_of_two_points_gets_two_modules_of_their_own_size() -> None:
    network: Any = seeded(make("mobilenet_v1", stage2_block1_residual=[SE]))
    block = network.stages[1][0]
    sizes = [part.mlp[0].in_features for part in (block.residual_depthwise, block.residual_pointwise)]
    assert sizes == [64, 128]


def test_stage_end_comes_after_the_whole_stage() -> None:
    network: Any = seeded(make(stage2_block1_stage_end=[SE])).eval()
    seen: list[Tensor] = []
    network.stage(2).register_forward_hook(lambda module, inputs, output: seen.append(output))
    network.stage_ends[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(torch.rand(1, *TASK.input_shape))
    assert seen[0] is seen[1]


def test_what_does_not_fit_is_refused_before_anything_is_built() -> None:
    architecture = make(
        stage1_block1_residual=[Module.make("se", reduction=16)], stage1_block2_residual=[SE], stage9_block1_post=[SE]
    )
    with pytest.raises(SpecError) as caught:
        build(architecture, TASK)
    assert [problem.field.split(".residual")[0] for problem in caught.value.problems] == [
        "placements.1.1",
        "placements.1.2",
        "placements.9.1.post",
    ]


@pytest.mark.parametrize("name", ["resnet8", "preact_resnet110", "mobilenet_v1", "mobilenet_v2", "densenet121"])
def test_every_module_trains_wherever_it_may_go(name: str) -> None:
    """One random module at each of many sites: finite logits of the right shape, and gradients at the stem."""
    backbone = Backbone.make(name)
    stages, rng = backbone.stages((3, 32, 32)), np.random.default_rng(0)
    kinds, placed = list(ATTENTION), {}
    for stage in stages:
        for number, block in list(enumerate(stage.blocks, start=1))[:3]:
            for position in block.points:
                site = Site(stage.number, number, position)
                info = kinds[rng.integers(len(kinds))]
                module = Module.make(info.name, **({"reduction": 4} if info.has_reduction else {}))
                if not list(site_problems(stages, site, (module,))):
                    placed[site] = [module]
    network = build(Architecture.make(backbone, placed), Task((3, 32, 32), 5)).train()
    logits = network(torch.rand(4, 3, 32, 32))
    assert logits.shape == (4, 5)
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    stem = next(network.parameters())
    assert stem.grad is not None
    assert torch.isfinite(stem.grad).all()
    assert stem.grad.abs().sum() > 0
