"""The placements that a request allows: count them exactly, sample, enumerate, walk to neighbours, encode.

A space is a product of genes. A gene is a list of distinct choices; there is one gene per stage, or a single one
when all stages make the same choice. Choices that place the same modules at the same sites are merged, and choices
of different stages never touch the same site, so the product counts architectures exactly, each once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from search.architecture import Architecture, Backbone, Placement
from search.choices import Choice, stage_choices
from search.errors import Problem, SpecError
from search.sites import Shape, StageGeometry, find_stage
from search.spec import SpaceSpec, StageSpec

Genotype = tuple[int, ...]


@dataclass(frozen=True)
class Gene:
    """One independent decision. stages: the stages it decides for."""

    stages: tuple[int, ...]
    choices: tuple[Choice, ...]


class SearchSpace:
    """The space that `spec` describes on `backbone` for images of `input_shape` (C × H × W).

    Raises SpecError with every choice that cannot be built, naming the stage, the module and the option.
    """

    def __init__(self, spec: SpaceSpec, backbone: Backbone, input_shape: Shape) -> None:
        self.backbone = backbone
        self.input_shape = input_shape
        self.stages = backbone.stages(input_shape)
        self.genes = _genes(spec, self.stages)
        if self.count == 1 and not self.architecture((0,) * len(self.genes)).placements:
            raise SpecError.one("modules", "The space is empty: it holds nothing but the backbone without attention.")
        self._index: tuple[dict[tuple[Placement, ...], int], ...] = tuple(
            {choice.placements: index for index, choice in enumerate(gene.choices)} for gene in self.genes
        )

    @property
    def count(self) -> int:
        """The number of distinct architectures, exactly (before constraints)."""
        return math.prod(len(gene.choices) for gene in self.genes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of choices of each gene."""
        return tuple(len(gene.choices) for gene in self.genes)

    def architecture(self, genotype: Genotype) -> Architecture:
        """The architecture with these choices, one index per gene."""
        chosen = (gene.choices[index] for gene, index in zip(self.genes, genotype, strict=True))
        return Architecture.make(self.backbone, dict(p for choice in chosen for p in choice.placements))

    def genotype(self, architecture: Architecture) -> Genotype:
        """The inverse of `architecture`; SpecError when it lies outside the space."""
        if architecture.backbone != self.backbone:
            raise SpecError.one("backbone", "The architecture has another backbone than the space.")
        indices = []
        covered = 0
        for gene, index in zip(self.genes, self._index, strict=True):
            mine = tuple(p for p in architecture.placements if p[0].stage in gene.stages)
            covered += len(mine)
            if mine not in index:
                sites = ", ".join(str(site) for site, _ in mine) or "none"
                raise SpecError.one("placements", f"Not in the space: the modules at {sites}.")
            indices.append(index[mine])
        if covered != len(architecture.placements):
            raise SpecError.one("placements", "Not in the space: a stage that the backbone lacks.")
        return tuple(indices)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly: every architecture is equally likely."""
        return tuple(int(rng.integers(size)) for size in self.sizes)

    def enumerate(self) -> Iterator[Genotype]:
        """Every genotype once, in lexicographic order."""
        return product(*(range(size) for size in self.sizes))

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """Every genotype that differs in exactly one gene."""
        for position, size in enumerate(self.sizes):
            for index in range(size):
                if index != genotype[position]:
                    yield (*genotype[:position], index, *genotype[position + 1 :])

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """`genotype` with one gene changed: half of the time to a choice that differs in one trait only
        (module, reduction, other options, position or pattern), else to any other choice of that gene.

        A space of one architecture is a ValueError."""
        movable = [position for position, size in enumerate(self.sizes) if size > 1]
        if not movable:
            raise ValueError("a space of one architecture has nothing to change")
        position = movable[int(rng.integers(len(movable)))]
        choices, current = self.genes[position].choices, genotype[position]
        options = [index for index in range(len(choices)) if index != current]
        if rng.random() < 0.5:
            close = [index for index in options if choices[index].differences(choices[current]) == 1]
            options = close or options
        return (*genotype[:position], options[int(rng.integers(len(options)))], *genotype[position + 1 :])

    def encode(self, genotypes: Sequence[Genotype]) -> npt.NDArray[np.float64]:
        """Features for models, n × d in [0, 1]: per gene the modules one-hot, then strength, share of blocks and
        the positions one-hot, and one-hot what these do not tell. Architectures are equal where their rows are."""
        tables = [_encode_gene(gene) for gene in self.genes]
        rows = [np.concatenate([table[i] for table, i in zip(tables, g, strict=True)]) for g in genotypes]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), sum(table.shape[1] for table in tables))


def _genes(spec: SpaceSpec, stages: tuple[StageGeometry, ...]) -> tuple[Gene, ...]:
    problems: list[Problem] = []
    for key in spec.stages:
        try:
            find_stage(stages, int(key), f"stages.{key}")
        except SpecError as error:
            problems += error.problems
    if spec.same_for_all_stages and spec.stages:
        problems.append(Problem("stages", "With same_for_all_stages no stage can choose from something else."))
    per_stage: list[tuple[Choice, ...]] = []
    for stage in stages:
        try:
            per_stage.append(stage_choices(_stage_spec(spec, stage.number), stage, _field_prefixes(spec, stage.number)))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(dict.fromkeys(problems))
    if spec.same_for_all_stages:
        merged = tuple(Choice.merge(choices) for choices in zip(*per_stage, strict=True))
        return (_gene(tuple(stage.number for stage in stages), merged),)
    return tuple(_gene((stage.number,), choices) for stage, choices in zip(stages, per_stage, strict=True))


def _gene(stages: tuple[int, ...], choices: Sequence[Choice]) -> Gene:
    """Keeps the first of the choices that place the same modules at the same sites."""
    distinct = {choice.placements: choice for choice in reversed(choices)}
    return Gene(stages, tuple(reversed(distinct.values())))


def _stage_spec(spec: SpaceSpec, number: int) -> StageSpec:
    own = spec.stages.get(str(number), StageSpec())
    return StageSpec(
        modules=own.modules or spec.modules,
        reduction=own.reduction or spec.reduction,
        pattern=own.pattern or spec.pattern,
        position=own.position or spec.position,
    )


def _field_prefixes(spec: SpaceSpec, number: int) -> dict[str, str]:
    """Where in the request each setting of a stage was written."""
    own = spec.stages.get(str(number), StageSpec())
    names = ("modules", "reduction", "pattern", "position")
    return {name: f"stages.{number}.{name}" if getattr(own, name) is not None else name for name in names}


def _encode_gene(gene: Gene) -> npt.NDArray[np.float64]:
    """Rows of features, one per choice of the gene."""
    kinds = sorted({kind for choice in gene.choices for kind in choice.kinds})
    positions = sorted({position for choice in gene.choices for position in choice.positions})
    most = max((choice.sites for choice in gene.choices), default=0) or 1
    rows = []
    for choice in gene.choices:
        modules = [float(kind in choice.kinds) for kind in kinds]
        places = [float(position in choice.positions) for position in positions]
        rows.append([*modules, choice.strength, choice.sites / most, *places])
    features = np.asarray(rows, dtype=np.float64)
    return np.concatenate([features, _option_columns(gene)], axis=1)


def _option_columns(gene: Gene) -> npt.NDArray[np.float64]:
    """One-hot columns for the traits, which together tell every choice from every other (the plain features do not:
    other options of a module, its place in a stack, the first block or the last)."""
    columns = []
    for trait in range(len(Choice.TRAITS)):
        values = sorted({choice.traits[trait] for choice in gene.choices})
        # of two values, one column says which
        for value in values if len(values) > 2 else values[1:]:
            columns.append([float(choice.traits[trait] == value) for choice in gene.choices])
    return np.asarray(columns, dtype=np.float64).reshape(len(columns), len(gene.choices)).T
