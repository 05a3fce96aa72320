"""Canonical form, key and validity of an architecture."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from search.architecture import Architecture, Backbone, Module
from search.attention import ATTENTION
from search.errors import SpecError
from search.sites import Site

IMAGE = (1, 12, 12)


def resnet() -> Backbone:
    return Backbone.make("resnet14", width=8)


def se(reduction: int = 4) -> Module:
    return Module.make("se", reduction=reduction)


# the text that is hashed, written out: a change of it orphans every stored result
GOLDEN = [
    (
        Architecture.make(resnet(), {}),
        '{"backbone":{"name":"resnet14","shortcut":"projection","width":8},"placements":{}}',
        "b6fee28d340ee21ab4d61ff14170ca97395fc1ed43bc3f892a4fe954b57db739",
    ),
    (
        Architecture.make(resnet(), {Site(1, 1, "residual"): [se()]}),
        '{"backbone":{"name":"resnet14","shortcut":"projection","width":8},'
        '"placements":{"1.1.residual":[{"kind":"se","reduction":4}]}}',
        "8e4a77b59acfdba2b5dd6f8a080354c8ca9f9a4c1c705bb67d98763046aa0018",
    ),
    (
        Architecture.make(
            resnet(), {Site(3, 2, "pre"): [Module.make("cbam", kernel=3), se(16)], Site(2, 1, "post"): [se(8)]}
        ),
        '{"backbone":{"name":"resnet14","shortcut":"projection","width":8},'
        '"placements":{"2.1.post":[{"kind":"se","reduction":8}],'
        '"3.2.pre":[{"branches":"both","kernel":3,"kind":"cbam","order":"channel_spatial","pool":"both","reduction":16,'
        '"spatial":"pooling"},{"kind":"se","reduction":16}]}}',
        "073b7b708af0e620564a0293046419f9af67620aae9ec0e1dbf1a69830a11bc9",
    ),
]


@pytest.mark.parametrize(("architecture", "text", "sha"), GOLDEN)
def test_keys_stay_what_they_are(architecture: Architecture, text: str, sha: str) -> None:
    assert architecture.key == hashlib.sha256(text.encode()).hexdigest()
    assert architecture.key == sha


def test_the_way_of_writing_does_not_count() -> None:
    first, second = Site(1, 2, "residual"), Site(3, 1, "post")
    one = Architecture.make(Backbone.make("resnet14", width=16), {second: [se(8)], first: [se(16)]})
    other = Architecture.make(
        Backbone.make("resnet14"), {first: (Module.make("se"),), Site(2, 1, "pre"): [], second: [se(8)]}
    )
    assert one == other
    assert one.key == other.key
    assert hash(one) == hash(other)


def test_options_without_effect_do_not_count() -> None:
    spatial = [Module.make("cbam", branches="spatial", reduction=r) for r in (4, 8)]
    assert spatial[0] == spatial[1]
    assert Module.make("cbam", branches="channel") == Module.make("cbam", spatial="none", kernel=3)


def test_numbers_that_are_equal_are_one_architecture() -> None:
    assert Backbone.make("resnet18", widen=2) == Backbone.make("resnet18", widen=2.0)
    keys = {Architecture.make(Backbone.make("resnet18", widen=w), {}).key for w in (2, 2.0)}
    assert len(keys) == 1


def test_what_differs_has_another_key() -> None:
    site = Site(1, 1, "residual")
    cbam = Module.make("cbam", reduction=4)
    different = [
        Architecture.make(resnet(), {}),
        Architecture.make(Backbone.make("resnet14", width=16), {}),
        Architecture.make(Backbone.make("resnet8", width=8), {}),
        Architecture.make(resnet(), {site: [se()]}),
        Architecture.make(resnet(), {site: [se(8)]}),
        Architecture.make(resnet(), {site: [se(), se()]}),
        Architecture.make(resnet(), {Site(1, 1, "pre"): [se()]}),
        Architecture.make(resnet(), {Site(1, 2, "residual"): [se()]}),
        Architecture.make(resnet(), {site: [se(), cbam]}),
        Architecture.make(resnet(), {site: [cbam, se()]}),
    ]
    assert len({architecture.key for architecture in different}) == len(different)
    assert [architecture.is_baseline for architecture in different] == [True] * 3 + [False] * 7


@pytest.mark.parametrize("kind", ATTENTION.names())
def test_json_and_back(kind: str) -> None:
    architecture = Architecture.make(
        resnet(), {Site(1, 1, ATTENTION.get(kind).positions[0]): [Module.make(kind), se()]}
    )
    data = json.loads(json.dumps(architecture.to_json()))
    assert Architecture.from_json(data) == architecture
    assert Architecture.from_json(data).key == architecture.key


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "backbone"),
        ({"backbone": 5}, "backbone"),
        ({"backbone": {"name": "resnet15"}}, "backbone.name"),
        ({"backbone": {"name": "resnet14", "field": 1}}, "backbone.field"),
        ({"backbone": {"name": "resnet14"}, "placements": {"1.1.middle": []}}, "placements.1.1.middle"),
        ({"backbone": {"name": "resnet14"}, "placements": {"1.1.pre": ["se"]}}, "placements.1.1.pre"),
        ({"backbone": {"name": "resnet14"}, "placements": {"1.1.pre": [{"kind": "es"}]}}, "placements.1.1.pre.kind"),
        ({"backbone": {"name": "resnet14"}, "placements": {"1.1.pre": [{"kind": "se", "cls": 1}]}},
         "placements.1.1.pre.cls"),
    ],
)  # fmt: skip
def test_json_that_is_no_architecture(data: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        Architecture.from_json(data)
    assert [problem.field for problem in caught.value.problems] == [field]


def test_a_valid_architecture_has_no_problems() -> None:
    Architecture.make(resnet(), {Site(3, 2, "stage_end"): [se(), Module.make("cbam", kernel=3)]}).check(IMAGE)


@pytest.mark.parametrize(
    ("site", "modules", "field", "message", "choices"),
    [
        (Site(4, 1, "pre"), [se()], "", "The backbone has no stage 4.", ("1", "2", "3")),
        (Site(1, 3, "pre"), [se()], "", "Stage 1 has no block 3.", ("1", "2")),
        (Site(1, 1, "stage_end"), [se()], "", "Stage 1, module 'se': Block 1 has no position 'stage_end'.",
         ("residual", "pre", "post", "identity")),
        (Site(1, 1, "conv"), [se()], "", "Stage 1, module 'se': It cannot go to position 'conv'.",
         ATTENTION.get("se").positions),
        (Site(2, 1, "residual"), [se(17)], ".se.reduction",
         "Stage 2, module 'se': Reduction ratio 17 is over the 16 channels there.", ("2", "4", "8", "16")),
        (Site(2, 1, "pre"), [se(9)], ".se.reduction",
         "Stage 2, module 'se': Reduction ratio 9 is over the 8 channels there.", ("2", "4", "8")),
    ],
)  # fmt: skip
def test_what_cannot_be_built(site: Site, modules: list[Module], field: str, message: str, choices: Any) -> None:
    with pytest.raises(SpecError) as caught:
        Architecture.make(resnet(), {site: modules}).check(IMAGE)
    (problem,) = caught.value.problems
    assert (problem.field, problem.message) == (f"placements.{site}{field}", message)
    assert problem.choices == choices


def test_two_modules_cannot_replace_one_convolution() -> None:
    aw = Module.make("aw", reduction=4)
    problems = list(Architecture.make(resnet(), {Site(1, 1, "conv"): [aw, aw]}).problems(IMAGE))
    assert [problem.message for problem in problems] == [
        "Modules 'aw' and 'aw': Only one module can replace a convolution."
    ]
