"""Costs against formulas, against built models, and against each other."""

from __future__ import annotations

import sys
from itertools import pairwise, product
from subprocess import run

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search import counting
from search.architecture import Architecture, Backbone, Module, Task, site_problems
from search.attention import ATTENTION
from search.cost import Cost, CostTable, MemoryStore
from search.errors import SpecError
from search.models import build
from search.sites import Site

TASK = Task((1, 12, 10), 10)


def small() -> Backbone:
    return Backbone.make("resnet8", width=8)


def conv(inputs: int, outputs: int, kernel: int, pixels: int) -> Cost:
    weights = inputs * outputs * kernel**2
    return Cost(weights + 2 * outputs, weights * pixels)  # with BatchNorm


def test_backbone_by_hand() -> None:
    """ResNet-8 of width 8 on 12 × 10: every layer written out."""
    shapes = [(8, 120), (16, 30), (32, 9)]  # channels, pixels of 12 × 10, 6 × 5, 3 × 3
    expected = conv(1, 8, 3, 120) + conv(8, 8, 3, 120) + conv(8, 8, 3, 120)
    for (inputs, _), (outputs, pixels) in pairwise(shapes):
        expected += conv(inputs, outputs, 3, pixels) + conv(outputs, outputs, 3, pixels)
        expected += conv(inputs, outputs, 1, pixels)
    assert CostTable(small(), TASK).backbone() == expected + Cost(32 * 10 + 10, 32 * 10)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_se_by_its_formula(reduction: int) -> None:
    """2C²/r + C + C/r parameters (ATTENTION.md), 2C²/r multiply–adds."""
    for stage, channels in enumerate([8, 16, 32], start=1):
        added = CostTable(small(), TASK).site(Site(stage, 1, "residual"), [Module.make("se", reduction=reduction)])
        weights = 2 * channels**2 // reduction
        assert added == Cost(weights + channels + channels // reduction, weights)


def valid_placements(backbone: Backbone, task: Task) -> list[tuple[Site, tuple[Module, ...]]]:
    """Every registered module with its defaults wherever it may go (reduction 4, as the widths here are small)."""
    stages = backbone.stages(task.input_shape)
    found = []
    for info in ATTENTION:
        module = Module.make(info.name, **({"reduction": 4} if info.has_reduction else {}))
        for stage in stages:
            for number, block in enumerate(stage.blocks, start=1):
                for position in block.points:
                    placement = (Site(stage.number, number, position), (module,))
                    if not list(site_problems(stages, *placement)):
                        found.append(placement)
    return found


def counted(architecture: Architecture, task: Task) -> Cost:
    """A built network, really run."""
    network = build(architecture, task).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.rand(1, *task.input_shape))
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def test_sums_equal_built_networks() -> None:
    backbone, rng = small(), np.random.default_rng(0)
    table, pool = CostTable(backbone, TASK), valid_placements(small(), TASK)
    for _ in range(30):
        chosen = [pool[i] for i in rng.choice(len(pool), size=4, replace=False)]
        architecture = Architecture.make(backbone, dict(chosen))
        assert table.architecture(architecture) == counted(architecture, TASK)


def test_stacked_modules_add_up() -> None:
    site, backbone = Site(2, 1, "residual"), small()
    modules = [Module.make("se", reduction=4), Module.make("cbam", reduction=4)]
    architecture = Architecture.make(backbone, {site: modules})
    table = CostTable(backbone, TASK)
    assert table.architecture(architecture) == counted(architecture, TASK)
    assert table.site(site, modules) == table.site(site, modules[:1]) + table.site(site, modules[1:])


class CountingStore(MemoryStore):
    puts = 0

    def put(self, key: str, cost: Cost) -> None:
        self.puts += 1
        super().put(key, cost)


def test_equal_sites_share_one_count_and_a_store_outlives_the_table() -> None:
    backbone, module, store = Backbone.make("resnet20", width=8), Module.make("se", reduction=4), CountingStore()
    everywhere = {Site(stage, block, "residual"): [module] for stage, block in product((1, 2, 3), (1, 2, 3))}
    architecture = Architecture.make(backbone, everywhere)
    first = CostTable(backbone, TASK, store).architecture(architecture)
    assert store.puts == 4  # the backbone, and SE at three shapes
    assert CostTable(backbone, TASK, store).architecture(architecture) == first
    assert store.puts == 4


def test_another_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="resnet14"):
        CostTable(small(), TASK).architecture(Architecture.make(Backbone.make("resnet14"), {}))


def test_a_missing_stage_is_refused() -> None:
    with pytest.raises(SpecError, match="no stage 4"):
        CostTable(small(), TASK).site(Site(4, 1, "residual"), [Module.make("se", reduction=4)])


def test_activation_bytes_of_known_layers() -> None:
    """A convolution keeps its input; a sigmoid its output; an in-place ReLU after BatchNorm one map more."""
    assert counting.activation_bytes(nn.Conv2d(4, 8, 3), (4, 5, 6)) == 4 * 30 * 4
    assert counting.activation_bytes(nn.Sigmoid(), (4, 5, 6)) == 4 * 30 * 4
    layers = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    assert counting.activation_bytes(layers, (4, 5, 6)) == (4 + 8 + 8) * 30 * 4


def test_activation_bytes_of_se_grow_with_the_map() -> None:
    table, se = CostTable(Backbone.make("resnet8"), Task((3, 32, 32), 10)), [Module.make("se", reduction=4)]
    one, three = (table.activation_bytes(Site(stage, 1, "residual"), se) for stage in (1, 3))
    assert 16 * 32 * 32 * 4 < one < 1.1 * 16 * 32 * 32 * 4
    assert one > 3 * three


def test_costing_from_a_store_needs_no_torch() -> None:
    code = (
        "import sys; from search.cost import *; "
        "store = MemoryStore(); store.get = lambda key: Cost(1, 2); "
        "table = CostTable(Backbone.make('resnet8'), Task((1, 8, 8), 10), store); "
        "assert table.site(Site(1, 1, 'residual'), [Module.make('se')]) == Cost(1, 2); "
        "assert table.backbone() == Cost(1, 2); assert 'torch' not in sys.modules"
    )
    run([sys.executable, "-c", code], check=True, timeout=280)


@pytest.mark.parametrize("kind", [info.name for info in ATTENTION])
def test_activation_bytes_on_meta_equal_a_real_run(kind: str) -> None:
    """Choices by size or device (AW-convolution has some) must not change what is said to be kept."""
    module = Module.make(kind, **({"reduction": 4} if ATTENTION.get(kind).has_reduction else {}))
    stages = small().stages(TASK.input_shape)
    sites = [Site(2, 1, position) for position in module.info.positions if position in stages[1].blocks[0].points]
    point = stages[1].points(sites[0])[0]
    real = counting.activation_bytes(module.info.build(module.options, point), point.shape)
    meta = counting.activation_bytes(counting.on_meta(lambda: module.info.build(module.options, point)), point.shape)
    assert meta == real > 0
