"""Everything that can be wrong with a request: each is told with its field, and with the choices if there are any."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import Problem, SpecError
from search.plan import make_plan
from search.spec import SearchSpec
from tests.search.test_plan import EVERYTHING, Entries, MakePlan


def refused(make: MakePlan, **fields: Any) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        make(**fields)
    return caught.value.problems


SE = {"modules": ["none", "se"]}


@pytest.mark.parametrize(
    ("fields", "field", "message", "choice"),
    [
        ({"dataset": {"name": "digit"}}, "dataset.name", "Unknown data set 'digit'.", "dots"),
        ({"dataset": {"name": "../../etc/passwd"}}, "dataset.name", "Unknown data set '../../etc/passwd'.", "dots"),
        ({"dataset": {"name": "file:///etc/passwd"}}, "dataset.name", "Unknown data set 'file:///etc/passwd'.", "dots"),
        ({"dataset": {"name": "dots", "colour": 1}}, "dataset.colour", "Data set 'dots' has no option 'colour'.",
         "size"),
        ({"dataset": {"name": "dots", "size": "16"}}, "dataset.size", "'16' is not valid for option 'size'.",
         "an integer from 1 to 64"),
        ({"backbone": {"name": "resnet140"}}, "backbone.name", "Unknown backbone 'resnet140'. Did you mean 'resnet14'?",
         "resnet14"),
        ({"backbone": {"name": "resnet14", "depth": 3}}, "backbone.depth", "Unknown option.", "width"),
        ({"backbone": {"name": "resnet14", "field": 3}}, "backbone.field", "Unknown option.", "width"),
        ({"backbone": {"name": "resnet14", "cls": 3}}, "backbone.cls", "Unknown option.", "width"),
        ({"backbone": {"name": "resnet14", "width": True}}, "backbone.width",
         "Must be a whole number, without quotes and without a decimal point.", None),
        ({"objectives": [{"metric": "top2"}, {"metric": "macs"}]}, "objectives.0.metric", "Unknown metric 'top2'.",
         "top1"),
        ({"objectives": [{"metric": "top1", "goal": "min"}, {"metric": "macs"}]}, "objectives.0.goal",
         "top1 is better when maximal.", "max"),
        ({"objectives": [{"metric": "top1"}, {"metric": "top1"}]}, "objectives.1.metric", "'top1' is listed twice.",
         None),
        ({"objectives": [{"metric": "params"}, {"metric": "macs"}]}, "objectives",
         "At least one objective must need training, or there is nothing to search.", "top1"),
        ({"constraints": [{"metric": "top1", "at_least": 0.9}]}, "constraints.0.metric",
         "Only costs, known before training, can be constrained; 'top1' is not one.", "macs"),
        ({"constraints": [{"metric": "macs", "at_most": 1}, {"metric": "macs", "at_least": 2}]}, "constraints.1.metric",
         "'macs' is listed twice; one constraint takes both at_least and at_most.", None),
        ({"training": {"recipe": "slow"}}, "training.recipe", "Unknown recipe 'slow'.", "quick"),
        ({"training": {"rate": 0.1}}, "training.rate", "Unknown option.", "lr"),
        ({"training": {"lr": "0.1"}}, "training.lr", "Must be a number, without quotes.", None),
        ({"training": {"milestones": [0.5, 2]}}, "training.milestones.1", "Must be under 1.", None),
        ({"strategy": {"name": "nsga3"}}, "strategy.name", "Unknown strategy 'nsga3'. Did you mean 'nsga2'?", "random"),
        ({"strategy": {"name": "random", "population": 8}}, "strategy.population", "Unknown option.", None),
        ({"strategy": {"population": 1}}, "strategy.population", "Must be at least 2.", None),
        ({"strategy": {"early_stopping": "halve"}}, "strategy.early_stopping.name",
         "Unknown early stopping 'halve'. Did you mean 'halving'?", "halving"),
        ({"strategy": {"early_stopping": {"name": "halving", "factor": 3}}}, "strategy.early_stopping.factor",
         "Unknown option.", "eta"),
        ({"strategy": {"early_stopping": {"name": "halving", "eta": 1}}}, "strategy.early_stopping.eta",
         "Must be at least 2.", None),
        ({"strategy": {"early_stopping": {"name": "halving", "min_epochs": 5}}, "training": {"epochs": 5}},
         "strategy.early_stopping.min_epochs", "Must be under the 5 epochs of a trial, or none is ever stopped.", None),
        ({"strategy": {"early_stopping": "halving"}, "objectives": [{"metric": "top1"}, {"metric": "latency_ms"}]},
         "strategy.early_stopping", "latency_ms is measured when training has ended: no epoch can be judged by it.",
         None),
        ({"strategy": {"early_stopping": "halving"}, "training": {"epochs": 1}}, "strategy.early_stopping",
         "A trial of one epoch cannot be stopped early: training.epochs must be at least 2.", None),
        ({"space": {"modules": ["none", "see"]}}, "space.modules.1",
         "Unknown attention module 'see'. Did you mean 'se'?", "none"),
        ({"space": {"modules": ["none", {"kind": "SE"}]}}, "space.modules.1",
         "Unknown attention module 'SE'. Did you mean 'se'?", "se"),
        ({"space": {"modules": ["none"]}}, "space.modules",
         "The space is empty: it holds nothing but the backbone without attention.", None),
        ({"space": {"modules": [5]}}, "space.modules.0",
         "Write a module's name, {kind: name, option: value}, or a list of those.", "se"),
        ({"space": {"modules": [{"reduction": 4}]}}, "space.modules.0",
         "Write a module's name, {kind: name, option: value}, or a list of those.", "se"),
        ({"space": {"modules": ["none", ["se"]]}}, "space.modules.1",
         "A list here stacks modules in one block: name 2 to 8.", None),
        ({"space": {"modules": ["none", ["se"] * 9]}}, "space.modules.1",
         "A list here stacks modules in one block: name 2 to 8.", None),
        ({"space": {"modules": [["se", "none"]]}}, "space.modules.0.1",
         "`none` has no options and cannot be stacked.", None),
        ({"space": {"modules": [["se", ["se", "cbam"]]]}}, "space.modules.0.1",
         "Write a module's name, {kind: name, option: value}, or a list of those.", None),
        ({"space": {"modules": ["se", "none", "se"]}}, "space.modules.2", "'se' is listed twice.", None),
        ({"space": {"modules": [{"kind": "se", "reduction": [4, 4]}]}}, "space.modules.0.reduction.1",
         "4 is listed twice.", None),
        ({"space": {"modules": [{"kind": "se", "reduction": []}]}}, "space.modules.0.reduction",
         "An empty list offers nothing to choose from.", None),
        ({"space": {"modules": [{"kind": "se", "position": []}]}}, "space.modules.0.position",
         "An empty list offers nothing to choose from.", None),
        ({"space": {"modules": [{"kind": "se", "reduction": "4"}]}}, "space.modules.0.reduction",
         "Module 'se', option 'reduction': Must be a whole number, without quotes and without a decimal point.", None),
        ({"space": {"modules": [{"kind": "se", "reduction": [4, 4.0]}]}}, "space.modules.0.reduction.1",
         "Module 'se', option 'reduction': Must be a whole number, without quotes and without a decimal point.", None),
        ({"space": {"modules": [{"kind": "se", "ratio": 4}]}}, "space.modules.0.ratio",
         "Module 'se', option 'ratio': Unknown option.",
         "reduction"),
        ({"space": {"modules": [{"kind": "cbam", "kernel": [3, 4]}]}}, "space.modules.0.kernel.1",
         "Module 'cbam', option 'kernel': The size of the kernel must be odd, so that the map keeps its size.", None),
        ({"space": {"modules": [{"kind": "cbam", "pool": "min"}]}}, "space.modules.0.pool",
         "Module 'cbam', option 'pool': Not one of the valid choices.", "avg"),
        ({"space": {"modules": [{"kind": "se", "position": ["pre", "conv"]}]}}, "space.modules.0.position.1",
         "Module 'se': It cannot go to position 'conv'.", "stage_end"),
        ({"space": {**SE, "position": ["pre", "conv"]}}, "space.position.1",
         "Module 'se': It cannot go to position 'conv'.", "stage_end"),
        ({"space": {**SE, "position": ["fpn_output"]}}, "space.position.0",
         "Stage 1, module 'se': Block 1 has no position 'fpn_output'.", "residual"),
        ({"space": {**SE, "reduction": [4, 17]}}, "space.reduction.1",
         "Stage 1, module 'se': Reduction ratio 17 is over the 16 channels there.", "16"),
        ({"space": {"modules": [["se", {"kind": "cbam", "reduction": [8, 64], "position": "post"}]]}},
         "space.modules.0.1.reduction.1", "Stage 1, module 'cbam': 64 is over the 16 channels there.", "16"),
        ({"space": {**SE, "stages": {"2": {"reduction": 64}}}}, "space.stages.2.reduction.0",
         "Stage 2, module 'se': Reduction ratio 64 is over the 32 channels there.", "32"),
        ({"space": {"modules": [["aw", {"kind": "aw", "reduction": 4}]]}}, "space.modules.0.1",
         "Modules 'aw' and 'aw': Only one module can replace a convolution.", "aw"),
        ({"space": {**SE, "stages": {"4": {}}}}, "space.stages.4", "The backbone has no stage 4.", "3"),
        ({"space": {**SE, "stages": {"1": {"modules": ["none"]}}, "same_for_all_stages": True}}, "space.stages",
         "With same_for_all_stages no stage can choose from something else.", None),
        ({"space": {**SE, "pattern": ["odd"]}}, "space.pattern.0", "'odd' is not a pattern.", "alternate"),
        ({"space": {**SE, "pattern": ["every", "every"]}}, "space.pattern.1", "'every' is listed twice.", None),
        ({"space": {**SE, "pattern": [1]}}, "space.pattern.0", "1 is not a pattern.", "a list of block numbers"),
        ({"space": {**SE, "pattern": [[]]}}, "space.pattern.0", "[] is not a pattern.", "every"),
        ({"space": {**SE, "pattern": [[True]]}}, "space.pattern.0", "[True] is not a pattern.", "every"),
        ({"space": {**SE, "pattern": [[1.0]]}}, "space.pattern.0", "[1.0] is not a pattern.", "every"),
        ({"space": {**SE, "pattern": [[1, 1]]}}, "space.pattern.0.1", "1 is listed twice.", None),
        ({"space": {**SE, "pattern": [[3]], "stages": {"1": {"pattern": "every"}, "2": {"pattern": "every"}}}},
         "space.pattern.0", "Stage 3: Blocks [3] do not fit a stage of 2 blocks (they count from 1).", "2"),
        ({"space": {**SE, "reduction": [4, 4]}}, "space.reduction.1", "4 is listed twice.", None),
        ({"space": {**SE, "position": ["pre", "pre"]}}, "space.position.1", "'pre' is listed twice.", None),
        ({"strategy": {"previous": [{"1.1": "se"}]}}, "strategy.previous.0",
         "'1.1' is not a site; write stage.block.position, as in 3.1.residual.", "residual"),
        ({"strategy": {"points": [{"1.1": "se"}]}}, "strategy.points.0",
         "'1.1' is not a site; write stage.block.position, as in 3.1.residual.", "residual"),
        ({"strategy": {"points": [{}, {"1.1.residual": "see"}]}}, "strategy.points.1.1.1.residual.kind",
         "Unknown attention module 'see'. Did you mean 'se'?", "se"),
        ({"strategy": {"points": [{"1.1.residual": 5}]}}, "strategy.points.0.1.1.residual",
         "Write a module's name or {kind: name, option: value}.", None),
        ({"strategy": {"points": [{"1.1.residual": {"kind": "se", "field": 5}}]}},
         "strategy.points.0.1.1.residual.field", "Unknown option.", "reduction"),
        ({"strategy": {"points": [{"1.1.residual": "se"}]}}, "strategy.points.0",
         "Not in the space: the modules at 1.1.residual.", None),
        ({"strategy": {"points": [{"9.1.residual": "se"}]}}, "strategy.points.0",
         "Not in the space: a stage that the backbone lacks.", None),
        ({"strategy": {"points": [{}, {"1.1.residual": []}]}}, "strategy.points.1",
         "Places the same modules as point 0.", None),
    ],
)  # fmt: skip
def test_bad_requests(make: MakePlan, fields: dict[str, Any], field: str, message: str, choice: str | None) -> None:
    problem, *others = refused(make, **fields)
    assert (problem.field, problem.message) == (field, message)
    assert {other.field for other in others} <= {field}  # the same in other stages
    assert choice is None or choice in problem.choices


def test_several_problems_are_told_at_once(make: MakePlan) -> None:
    problems = refused(
        make, dataset={"name": "digit"}, objectives=[{"metric": "top1"}, {"metric": "x"}], training={"lr": -1}
    )
    assert [problem.field for problem in problems] == ["dataset.name", "objectives.1.metric", "training.lr"]


def test_each_stage_where_a_ratio_is_too_large_is_named(make: MakePlan) -> None:
    problems = refused(make, space={**SE, "reduction": [4, 64]}, backbone={"name": "resnet14", "width": 16})
    assert {problem.field for problem in problems} == {"space.reduction.1"}
    assert [problem.message[:7] for problem in problems] == ["Stage 1", "Stage 2"]


def test_images_too_small_for_the_backbone(make: MakePlan) -> None:
    (problem,) = refused(make, dataset={"name": "dots", "size": 1}, backbone={"name": "vgg16_bn"})
    assert problem.field == "backbone"
    assert problem.message.startswith("vgg16_bn on images of 1 × 1 (dots): Images of this size are too small")


def test_nothing_published_yet() -> None:
    with pytest.raises(SpecError) as caught:
        make_plan(SearchSpec.parse({"name": "x", "dataset": {"name": "dots"}}), {})
    assert caught.value.problems[0].field == "dataset.name"
    assert "attune serve" in str(caught.value)


def test_only_blocks_that_a_pattern_picks_must_have_the_position(make: MakePlan) -> None:
    """The first block of each stage of MobileNetV2 has no shortcut, and so no `identity`."""
    fields = {"backbone": {"name": "mobilenet_v2"}, "dataset": {"name": "dots", "size": 64}}
    space = {"modules": ["none", "se"], "reduction": 2, "position": "identity"}
    stages = {"1": {"position": "residual", "pattern": "every"}}
    assert make(**fields, space={**space, "stages": stages, "pattern": [[2]]}).space.count == 2**5
    problems = refused(make, **fields, space={**space, "stages": stages, "pattern": ["every"]})
    assert {problem.field for problem in problems} == {"space.position.0"}
    assert problems[0].message == "Stage 2, module 'se': Block 1 has no position 'identity'."


@pytest.mark.parametrize(
    ("modules", "field"),
    [
        ([["se"] * 8], "space.modules"),
        ([{"kind": "cbam", "kernel": list(range(1, 3000, 2)), "reduction": list(range(1, 1000))}], "space.modules.0"),
        (["none", *({"kind": "se", "reduction": list(range(1, 50)), "position": p} for p in ("pre", "post")),
          ["se", "cbam"], ["cbam", "se"], ["se", "se"], ["cbam", "cbam"], ["se", "se", "cbam"]], "space.modules"),
    ],
)  # fmt: skip
def test_a_space_too_large_is_refused_and_not_listed(make: MakePlan, modules: list[Any], field: str) -> None:
    ratios = list(range(1, 51))
    problems = refused(
        make, space={"modules": modules, "reduction": ratios, "pattern": [*([b] for b in range(1, 10)), "every"]},
        backbone={"name": "resnet56", "width": 64},
    )  # fmt: skip
    assert {(p.field, p.message) for p in problems} == {
        (field, "The space is too large: over 5,000 choices for a stage.")
    }


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a request."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in children:
        yield from paths(item, (*path, key))


PLACES = [path for path in paths(EVERYTHING) if path]


WORDS = st.sampled_from(
    ["none", "se", "cbam", "aw", "every", "residual", "conv", "macs", "top1", "max", "quick", "resnet14", "dots",
     "kind", "1.1.residual", "²", "5", "self", "field", "name", "reduction", "position", "epochs"]
)  # fmt: skip


LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 70) | st.integers() | st.floats() | WORDS
    | st.text(st.characters(codec=None), max_size=4) | st.dates()
)  # fmt: skip


ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), ANYTHING, st.booleans())
def test_anything_at_any_place_is_a_plan_or_a_spec_error(
    datasets: Entries, place: tuple[Any, ...], value: Any, added: bool
) -> None:
    data = copy.deepcopy(EVERYTHING)
    *outer, last = place
    inner: Any = data
    for part in outer:
        inner = inner[part]
    if added and isinstance(inner, dict):
        inner[value if isinstance(value, str) else "more"] = value
    elif added:
        inner.append(value)
    else:
        inner[last] = value
    problems: tuple[Problem, ...] = ()
    try:
        plan = make_plan(SearchSpec.parse(data), datasets)
    except SpecError as error:
        problems = error.problems
    assert all(f"{p.field}{p.message}".encode() and p.message[-1] in ".?" for p in problems)
    if problems:
        return
    stored = json.loads(json.dumps(plan.resolved(), allow_nan=False))
    assert make_plan(SearchSpec.parse_stored(stored), datasets).resolved() == stored


@pytest.mark.parametrize(
    ("training", "field"),
    [
        ({"recipe": "finetune"}, "training.recipe"),
        ({"backbone_lr": 0.1}, "training.backbone_lr"),
        ({"freeze_epochs": 2}, "training.freeze_epochs"),
    ],
)
def test_fine_tuning_needs_weights(make: MakePlan, training: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in refused(make, training=training)] == [field]
