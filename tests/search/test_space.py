"""The space against a literal reading of the request: every combination written out and compared as sets."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.architecture import Architecture, Backbone, Module
from search.errors import SpecError
from search.sites import Site
from search.space import SearchSpace
from search.spec import SearchSpec, SpaceSpec

IMAGE = (1, 12, 12)
BLOCKS = {"resnet8": 1, "resnet14": 2, "resnet20": 3}
STAGES = (1, 2, 3)
HOME = {"se": "residual", "cbam": "residual", "bam": "stage_end", "aw": "conv"}


def parsed(written: dict[str, Any]) -> SpaceSpec:
    return SearchSpec.parse({"name": "x", "dataset": {"name": "x"}, "space": written}).space


def space_of(written: dict[str, Any], backbone: str = "resnet14") -> SearchSpace:
    return SearchSpace(parsed(written), Backbone.make(backbone, width=8), IMAGE)


# ---- the literal reading: plain data in, sets of {(site, modules as text)} out, without any code of search/


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def identity(kind: str, options: dict[str, Any]) -> str:
    """What a module is: options that do nothing are none (CBAM's spatial branch has no reduction)."""
    if options.get("branches") == "spatial":
        options = {name: value for name, value in options.items() if name != "reduction"}
    defaults = {"kernel": 7, "dilation": 4, "branches": "both"}
    told = {name: value for name, value in options.items() if defaults.get(name) != value}
    return json.dumps([kind, told], sort_keys=True)


def ways(entry: Any, setting: dict[str, Any]) -> list[tuple[str, str]]:
    """(module, position) in every combination of options and positions."""
    written = entry if isinstance(entry, dict) else {"kind": entry}
    kind = written["kind"]
    options = {name: listed(value) for name, value in written.items() if name not in ("kind", "position")}
    options.setdefault("reduction", setting["reduction"])
    if "position" in written:
        positions = listed(written["position"])
    elif setting["position"] and HOME[kind] == "residual":
        positions = setting["position"]
    else:
        positions = [HOME[kind]]
    values = [dict(zip(options, combination, strict=True)) for combination in product(*options.values())]
    return [(identity(kind, chosen), position) for chosen in values for position in positions]


def picked(pattern: Any, blocks: int) -> list[int]:
    if isinstance(pattern, list):
        return pattern
    every = list(range(1, blocks + 1))
    return {"every": every, "first": every[:1], "last": every[-1:], "alternate": every[::2]}[pattern]


def stage_ways(setting: dict[str, Any], stage: int, blocks: int) -> list[frozenset[tuple[str, tuple[str, ...]]]]:
    """What the stage may hold, one for each way of writing it."""
    found = []
    for entry in setting["modules"]:
        stacks = [()] if entry == "none" else list(product(*(ways(e, setting) for e in listed(entry))))
        for stack, pattern in product(stacks, setting["pattern"]):
            sites: dict[str, tuple[str, ...]] = {}
            for module, position in stack:
                for block in [blocks] if position == "stage_end" else picked(pattern, blocks):
                    site = f"{stage}.{block}.{position}"
                    sites[site] = (*sites.get(site, ()), module)
            found.append(frozenset(sites.items()))
    return found


def literally(written: dict[str, Any], blocks: int) -> list[set[frozenset[tuple[str, tuple[str, ...]]]]]:
    """The distinct fillings of each gene."""
    base = {"reduction": [4, 8], "pattern": ["every", "last"], "position": None, **written}
    if written.get("same_for_all_stages"):
        aligned = zip(*(stage_ways(base, stage, blocks) for stage in STAGES), strict=True)
        return [{frozenset().union(*filling) for filling in aligned}]
    return [set(stage_ways({**base, **written.get("stages", {}).get(str(s), {})}, s, blocks)) for s in STAGES]


def as_read(architecture: Architecture) -> frozenset[tuple[str, tuple[str, ...]]]:
    """An architecture in the form of the literal reading."""

    def module(m: Module) -> str:
        names = {"se": ("reduction",), "cbam": ("reduction", "kernel", "branches"), "bam": ("reduction", "dilation")}
        options = m.options.model_dump()
        return identity(m.kind, {name: options[name] for name in names[m.kind]})

    return frozenset((str(site), tuple(map(module, modules))) for site, modules in architecture.placements)


def some(values: list[Any], most: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique_by=json.dumps)


ENTRIES = [
    "none", "se", "cbam", "bam", {"kind": "se"}, {"kind": "se", "reduction": [2, 8]}, {"kind": "se", "reduction": 4},
    {"kind": "se", "position": ["pre", "stage_end"]}, {"kind": "cbam", "kernel": [3, 7]},
    {"kind": "cbam", "branches": ["spatial", "both"]}, {"kind": "bam", "dilation": [2, 4], "position": "residual"},
    ["se", "cbam"], ["cbam", "se"], ["se", "se"], [{"kind": "se", "position": "post"}, "bam"],
]  # fmt: skip


@st.composite
def written_spaces(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    backbone = draw(st.sampled_from(sorted(BLOCKS)))
    blocks = BLOCKS[backbone]
    patterns = ["every", "first", "last", "alternate", [1], [blocks], list(range(blocks, 0, -1))]
    fields = {
        "modules": some(ENTRIES, 4),
        "reduction": some([2, 4, 8], 2),
        "pattern": some(patterns, 3),
        "position": some(["residual", "pre", "post", "identity", "stage_end"], 2),
    }
    written = {name: draw(values) for name, values in fields.items() if name == "modules" or draw(st.booleans())}
    if draw(st.booleans()):
        written["same_for_all_stages"] = True
    else:
        own = st.fixed_dictionaries({}, optional=fields)
        written["stages"] = draw(st.dictionaries(st.sampled_from(["1", "2", "3"]), own, max_size=2))
    return backbone, written


@settings(max_examples=120, deadline=None)
@given(written_spaces())
def test_the_space_is_its_literal_reading(case: tuple[str, dict[str, Any]]) -> None:
    backbone, written = case
    expected = literally(written, BLOCKS[backbone])
    count = math.prod(map(len, expected))
    if expected == [{frozenset()}] * len(expected):
        with pytest.raises(SpecError, match="empty"):
            space_of(written, backbone)
        return
    space = space_of(written, backbone)
    assert space.count == count
    for index, fillings in enumerate(expected):
        zeros = [0] * len(expected)
        found = []
        for choice in range(space.sizes[index]):
            architecture = space.architecture((*zeros[:index], choice, *zeros[index + 1 :]))
            stages = space.genes[index].stages
            found.append(frozenset(item for item in as_read(architecture) if int(item[0][0]) in stages))
        assert len(found) == len(set(found))
        assert set(found) == fillings
    if count <= 400:
        architectures = [space.architecture(genotype) for genotype in space.enumerate()]
        assert {as_read(a) for a in architectures} == {frozenset().union(*f) for f in product(*expected)}
        assert len({architecture.key for architecture in architectures}) == count


@settings(max_examples=60, deadline=None)
@given(written_spaces(), st.integers(0, 2**32))
def test_genotypes_and_architectures_are_one_to_one(case: tuple[str, dict[str, Any]], seed: int) -> None:
    backbone, written = case
    assume(any(expected != {frozenset()} for expected in literally(written, BLOCKS[backbone])))
    space, rng = space_of(written, backbone), np.random.default_rng(seed)
    drawn = [space.sample(rng) for _ in range(20)]
    for genotype in drawn:
        architecture = space.architecture(genotype)
        architecture.check(IMAGE)
        assert space.genotype(architecture) == genotype
        assert space.genotype(Architecture.from_json(json.loads(json.dumps(architecture.to_json())))) == genotype
    rows = space.encode(drawn)
    assert rows.shape[0] == 20
    assert rows.min() >= 0
    assert rows.max() <= 1
    for one, row in zip(drawn, rows, strict=True):
        for other, its in zip(drawn, rows, strict=True):
            assert (one == other) == bool((row == its).all())


@settings(max_examples=60, deadline=None)
@given(written_spaces(), st.integers(0, 2**32))
def test_steps_change_one_gene(case: tuple[str, dict[str, Any]], seed: int) -> None:
    backbone, written = case
    assume(any(len(expected) > 1 for expected in literally(written, BLOCKS[backbone])))
    space, rng = space_of(written, backbone), np.random.default_rng(seed)
    genotype = space.sample(rng)
    neighbours = list(space.neighbours(genotype))
    expected = {
        (*genotype[:gene], choice, *genotype[gene + 1 :])
        for gene, size in enumerate(space.sizes) for choice in range(size) if choice != genotype[gene]
    }  # fmt: skip
    assert len(neighbours) == len(expected)
    assert set(neighbours) == expected
    for _ in range(30):
        assert space.mutate(genotype, rng) in expected


def test_the_space_of_the_design() -> None:
    """The request of the design document on ResNet-14, counted by hand."""
    written = {
        "modules": ["none", "se", "cbam", {"kind": "bam", "dilation": [2, 4]}, "aw", ["aw", "se"]],
        "reduction": [2, 4, 8],
        "pattern": ["every", "last", "alternate"],
        "position": ["residual"],
        "stages": {3: {"modules": ["none", "nonlocal"]}},
    }
    # none; SE, CBAM and AW: 3 ratios × 3 patterns; BAM at the stage's end: 3 × 2; AW and SE with a ratio each: 9 × 3
    stage = 1 + 3 * 9 + 6 + 27
    # alternate blocks of two are the first; non-local has no ratio
    assert space_of(written).sizes == (stage, stage, 1 + 3)
    assert space_of(written, "resnet8").sizes == (1 + 3 * 3 + 6 + 9,) * 2 + (2,)


def test_choices_keep_the_order_in_which_they_are_written() -> None:
    space = space_of({"modules": ["none", "cbam", "se"], "reduction": [8, 4], "pattern": ["last", "every"]})
    told = [choice.traits[:2] + choice.traits[4:] for choice in space.genes[0].choices]
    assert told == [("none", "", "last"), *product(("cbam", "se"), ("8", "4"), ("last", "every"))]


def test_enumeration_is_lexicographic_and_complete() -> None:
    space = space_of({"modules": ["none", "se"], "reduction": [4], "pattern": ["every", "last"]})
    listed = list(space.enumerate())
    assert listed == sorted(set(listed))
    assert len(listed) == space.count == 27


def test_a_huge_space_is_counted_exactly() -> None:
    written = {
        "modules": ["none", *({"kind": kind, "position": ["residual", "pre", "post"]} for kind in ("se", "cbam"))],
        "reduction": [1, 2, 3, 4, 5, 6, 7, 8],
        "pattern": [[block] for block in range(1, 19)],
    }
    assert space_of(written, "resnet110").count == (1 + 2 * 3 * 8 * 18) ** 3


def test_samples_are_uniform() -> None:
    """Pearson's chi-square over 125 architectures; 40 draws each; 4 standard deviations above the mean of it."""
    space = space_of({"modules": ["none", "se"], "reduction": [2, 4], "pattern": ["every", "last"]})
    rng, draws = np.random.default_rng(0), 40 * space.count
    counts = Counter(space.sample(rng) for _ in range(draws))
    expected = draws / space.count
    statistic = sum((counts[genotype] - expected) ** 2 / expected for genotype in space.enumerate())
    freedom = space.count - 1
    assert space.count == 125
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_half_of_the_mutations_are_small() -> None:
    """From `SE r = 4 in every block`: none, CBAM, another ratio or another pattern are one step away."""
    space = space_of({"modules": ["none", "se", "cbam"], "reduction": [2, 4, 8], "pattern": ["every", "first", "last"]})
    choices = space.genes[0].choices
    index = {choice.traits[:2] + choice.traits[4:]: number for number, choice in enumerate(choices)}
    start, size = index["se", "4", "every"], len(choices)
    near = {index[trait] for trait in [
        ("none", "", "every"), ("cbam", "4", "every"), ("se", "2", "every"), ("se", "8", "every"), ("se", "4", "first"),
        ("se", "4", "last"),
    ]}  # fmt: skip
    assert {i for i, choice in enumerate(choices) if choice.differences(choices[start]) == 1} == near
    rng = np.random.default_rng(0)
    drawn = [space.mutate((start,) * 3, rng) for _ in range(3000)]
    small = sum(any(after != start and after in near for after in genotype) for genotype in drawn)
    assert size == 19
    assert abs(small / 3000 - (0.5 + 0.5 * len(near) / (size - 1))) < 0.03


def test_one_architecture_has_nowhere_to_go() -> None:
    space = space_of({"modules": ["se"], "reduction": [4], "pattern": ["every"]})
    assert space.count == 1
    assert list(space.neighbours((0, 0, 0))) == []
    with pytest.raises(ValueError, match="nothing to change"):
        space.mutate((0, 0, 0), np.random.default_rng(0))


def test_encoding_tells_apart_what_counts_alone_do_not() -> None:
    """First and last have as many blocks; kernels of 3 and 7 the same module."""
    space = space_of({"modules": [{"kind": "cbam", "kernel": [3, 7]}], "reduction": [4], "pattern": ["first", "last"]})
    rows = space.encode(list(space.enumerate()))
    assert len(np.unique(rows, axis=0)) == space.count == 64
    assert space.encode([]).shape == (0, rows.shape[1])


@pytest.mark.parametrize(
    ("backbone", "placements", "message"),
    [
        ("resnet20", {}, "another backbone"),
        ("resnet14", {Site(1, 1, "residual"): [Module.make("se", reduction=4)]}, "the modules at 1.1.residual"),
        ("resnet14", {Site(4, 1, "residual"): [Module.make("se", reduction=4)]}, "a stage that the backbone lacks"),
    ],
)  # fmt: skip
def test_architectures_outside(backbone: str, placements: Any, message: str) -> None:
    space = space_of({"modules": ["none", "se"], "reduction": [4], "pattern": ["every"]})
    with pytest.raises(SpecError, match=message):
        space.genotype(Architecture.make(Backbone.make(backbone, width=8), placements))
