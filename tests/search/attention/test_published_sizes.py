"""Modules in ResNet50 have as many parameters as their papers and their authors' code."""

from __future__ import annotations

import pytest

from search.architecture import Architecture, Backbone, Module, Task
from search.cost import CostTable
from search.sites import Position, Site

BACKBONE = Backbone.make("resnet50")
TASK = Task((3, 224, 224), 1000)


@pytest.mark.parametrize(
    ("name", "stages", "position", "millions"),
    [
        ("se", (1, 2, 3, 4), "residual", 28.09),  # CBAM, table 4
        ("cbam", (1, 2, 3, 4), "residual", 28.09),  # CBAM, table 4
        ("bam", (1, 2, 3), "stage_end", 25.92),  # the official code
        ("gc", (2, 3, 4), "residual", 28.08),  # the official code's layers, c3 to c5
    ],
)
def test_parameters(name: str, stages: tuple[int, ...], position: Position, millions: float) -> None:
    sites = [
        Site(stage.number, number, position)
        for stage in BACKBONE.stages(TASK.input_shape)
        for number, block in enumerate(stage.blocks, start=1)
        if stage.number in stages and position in block.points
    ]
    architecture = Architecture.make(BACKBONE, {site: [Module.make(name)] for site in sites})
    assert round(CostTable(BACKBONE, TASK).architecture(architecture).params / 1e6, 2) == millions
