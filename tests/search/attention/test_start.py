"""A network with modules that start as the identity answers as the backbone does before its first step."""

from __future__ import annotations

import pytest
import torch

from search.architecture import Architecture, Backbone, Module, Task
from search.attention import ATTENTION
from search.models import build
from search.sites import Site

TASK = Task((3, 24, 24), 5)
BACKBONE = Backbone.make("resnet14", width=16)
PLACES = (
    Site(1, 1, "post"),
    Site(2, 1, "residual"),
    Site(2, 2, "stage_end"),
    Site(3, 1, "identity"),
    Site(3, 2, "pre"),
)


@pytest.mark.parametrize("name", [info.name for info in ATTENTION if info.identity_at_start])
def test_weights_keep_their_answers(name: str) -> None:
    modules = [Module.make(name, **({"reduction": 4} if name == "gc" else {}))]
    images = torch.randn(2, *TASK.input_shape, generator=torch.Generator().manual_seed(0))
    logits = []
    for placements in ({}, dict.fromkeys(PLACES, modules)):
        torch.manual_seed(0)
        network = build(Architecture.make(BACKBONE, placements), TASK)
        logits.append(network(images))  # in training mode
    assert torch.equal(*logits)


def test_some_modules_start_as_the_identity_and_gates_do_not() -> None:
    at_start = {info.name for info in ATTENTION if info.identity_at_start}
    assert at_start >= {"nonlocal", "danet_position", "danet_channel", "danet_dual", "gc", "a2", "sparse_attention"}
    assert not at_start & {"se", "cbam", "bam", "eca", "gala", "sca"}
