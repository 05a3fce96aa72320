"""What a request is accepted for can be built and costs what was said; what is refused says where and why.

Requests are drawn at random over every module, backbone and option, sensible or not.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from search import counting
from search.attention import ATTENTION
from search.attention.registry import AttentionInfo
from search.backbones import BACKBONES
from search.datasets import DatasetEntry
from search.errors import SpecError
from search.models import build
from search.plan import SearchPlan, make_plan
from search.registry import Options
from search.sites import Shape
from search.spec import SearchSpec

SHAPES: tuple[Shape, ...] = ((1, 12, 12), (3, 32, 32), (3, 8, 8), (3, 1, 1), (3, 16, 90), (4, 5, 7), (3, 33, 47))
WHOLE = (1, 2, 3, 4, 5, 7, 8, 16, 31, 64)
FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
BATCH = 10


def entry(shape: Shape) -> DatasetEntry:
    return DatasetEntry(
        name="d", title="", source="", input_shape=shape, classes=10, train_size=1, validation_size=1, test_size=1,
        fingerprint="f" * 64,
    )  # fmt: skip


def value(options: type[Options], name: str, rng: random.Random) -> Any:
    """A value of the option's type and range."""
    schema = options.model_json_schema()["properties"][name]
    schema = rng.choice(schema.get("anyOf", [schema]))
    if "enum" in schema or "const" in schema:
        return rng.choice(schema.get("enum", [schema.get("const")]))
    within = schema.get("minimum", 0), schema.get("maximum", 10**9)
    match schema["type"]:
        case "integer":
            return rng.choice([number for number in WHOLE if within[0] <= number <= within[1]])
        case "number":
            return rng.choice([number for number in FRACTIONS if number <= within[1]])
        case "boolean":
            return rng.random() < 0.5
    return None


def module(info: AttentionInfo, rng: random.Random) -> dict[str, Any]:
    written = {name: value(info.options, name, rng) for name in info.options.model_fields if rng.random() < 0.5}
    if info.has_reduction:
        written.setdefault("reduction", rng.choice((1, 2, 4)))
    if rng.random() < 0.5:
        written["position"] = rng.choice(info.positions)
    return {"kind": info.name, **written}


def request(rng: random.Random) -> dict[str, Any]:
    info = BACKBONES.get(rng.choice(BACKBONES.names()))
    options = {name: value(info.options, name, rng) for name in info.options.model_fields if rng.random() < 0.4}
    modules = [module(rng.choice(list(ATTENTION)), rng) for _ in range(2)]
    space = {"modules": [modules[0], modules] if rng.random() < 0.5 else modules[:1]}
    return {"name": "x", "dataset": {"name": "d"}, "backbone": {"name": info.name, **options}, "space": space}


def check_refusal(error: SpecError, written: dict[str, Any]) -> None:
    for problem in error.problems:
        first, *path = problem.field.split(".")
        if first == "space":
            named = [kind for kind in ATTENTION.names() if repr(kind) in problem.message]
            assert named, problem
            assert all(repr(kind) in str(written["space"]["modules"]) for kind in named), problem
            assert path[0] == "modules", problem
        else:
            assert first == "backbone", problem


def check_acceptance(plan: SearchPlan, seed: int) -> None:
    genotype = plan.space.sample(np.random.default_rng(seed))
    architecture = plan.space.architecture(genotype)
    network = counting.on_meta(lambda: build(architecture, plan.task)).train()
    logits = network(torch.empty(2, *plan.task.input_shape, device="meta"))
    assert logits.shape == (2, plan.task.classes)
    assert plan.costs().cost(genotype).params == counting.parameters(network)


@pytest.mark.parametrize("seed", range(0, 60, BATCH))
def test_accepted_requests_can_be_built_and_refusals_say_where(seed: int) -> None:
    for number in range(seed, seed + BATCH):
        rng = random.Random(number)
        written, shape = request(rng), rng.choice(SHAPES)
        try:
            plan = make_plan(SearchSpec.parse(written), {"d": entry(shape)})
        except SpecError as error:
            check_refusal(error, written)
        else:
            check_acceptance(plan, number)
