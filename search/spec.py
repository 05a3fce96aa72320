"""SearchSpec: the whole request as a user writes it, in YAML or JSON, with its documentation.

The models check types and ranges; what depends on a backbone, a data set or a module is checked by
`search.plan`, which looks everything up. Every problem is a SpecError that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from search import wording
from search.errors import SpecError, shown
from search.fields import (
    Identifier,
    Modules,
    Name,
    OpenPart,
    Part,
    Patterns,
    Positions,
    Ratios,
    StageKey,
    Tag,
    as_object,
    or_auto,
    or_name,
)
from search.json_values import MOST_PROBLEMS, text_keys, unfit
from search.metrics import Goal

SPEC_VERSION = 1


class DatasetSpec(OpenPart):
    """The data set by its registered name, and its options (`GET catalog/datasets` lists them)."""

    name: Identifier


class BackboneSpec(OpenPart):
    """The backbone by name, and its options (`GET catalog/backbones` lists them)."""

    name: Identifier = "resnet14"


class InitSpec(Part):
    """What trials start from. Left out: weights drawn at random, from the seed."""

    weights: Identifier | None = Field(
        default=None,
        description="Weights of the backbone by the name under which the operator has registered them "
        "(`GET catalog/weights` lists them). Modules of the space start as they do without; those that start as the "
        "identity change nothing at first. A classifier for another number of classes is drawn at random.",
    )
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 (hex) of the file, if it must be just that one; a stored search holds it."
    )

    @model_validator(mode="after")
    def _fingerprint_of_something(self) -> Self:
        if self.fingerprint is not None and self.weights is None:
            raise ValueError("A fingerprint needs the name of its weights")
        return self


class StageSpec(Part):
    """What one stage may choose from, where it differs from the whole space."""

    modules: Modules | None = None
    reduction: Ratios | None = None
    pattern: Patterns | None = None
    position: Positions | None = None


class SpaceSpec(Part):
    """The placements to choose from; the choices multiply out per stage."""

    modules: Modules = ["none", "se", "cbam"]
    reduction: Ratios = [4, 8]
    pattern: Patterns = ["every", "last"]
    position: Positions | None = None
    stages: dict[StageKey, StageSpec] = Field(
        default_factory=dict, description="Stages (from 1) that choose from something else."
    )
    same_for_all_stages: bool = Field(default=False, description="Every stage makes the same choice.")


class ObjectiveSpec(Part):
    """A metric and the direction to push it; the direction may be left out."""

    metric: Identifier
    goal: Goal | None = None


class ConstraintSpec(Part):
    """A bound on a cost metric; architectures outside are never trained."""

    metric: Identifier
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _has_bound(self) -> Self:
        if self.at_most is None and self.at_least is None:
            raise ValueError("Give at_most, at_least or both")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ValueError("at_least is over at_most")
        return self


class TrainingSpec(OpenPart):
    """The recipe by name; further fields override the recipe's (`GET catalog/recipes` lists them)."""

    recipe: Identifier = "quick"
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None


class EarlyStoppingSpec(OpenPart):
    """A way of early stopping by name, and its options (`GET catalog/strategies`, `early_stopping`)."""

    name: Identifier


class StrategySpec(OpenPart):
    """How the space is walked; further fields are the strategy's options (`GET catalog/strategies`)."""

    name: Identifier = "nsga2"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    early_stopping: Annotated[
        EarlyStoppingSpec | None,
        BeforeValidator(as_object),
        Field(
            description="Ends explore trials that do badly after some of their epochs: `halving`, or an object "
            "{name: halving, eta: 3, min_epochs: 1}. Left out: every trial is trained to its end.",
            json_schema_extra=or_name,
        ),
    ] = None
    points: Annotated[list[dict[str, Any]], Field(max_length=1000)] = Field(
        default_factory=list,
        description="Placements to try first: objects {site: module or list of modules}, as a trial shows them.",
    )
    previous: Annotated[list[dict[str, Any]], Field(max_length=1000)] = Field(
        default_factory=list,
        description="Tried next, and trained to their end whatever early stopping says: the front of the search "
        "before, filled in by a schedule.",
    )


class BudgetSpec(Part):
    """When to stop: whatever is reached first."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=32, description="Explore trials started.")
    hours: Annotated[float, Field(gt=0, le=10_000)] | None = Field(default=None, description="Wall clock.")
    gpu_hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = None


def share_of_gpu(trials: int) -> float:
    """Of a GPU for each of so many trials: four decimals, as Ray hands out, and never more than all together have."""
    return (10_000 // trials) / 10_000


class ResourcesSpec(Part):
    """What one trial takes and how it uses it, and how many run at once (default: as many as the search's share of the
    cluster)."""

    cpus: Annotated[float, Field(gt=0, le=1024)] = 1
    gpus: Annotated[
        float,
        Field(
            ge=0,
            le=1024,
            description="`auto`: as many trials share a GPU as a short probe finds to pay, before the first trial; "
            "the search then shows what has come out (`gpus` and `trials_per_gpu`).",
            json_schema_extra=or_auto,
        ),
    ] = 0
    trials_per_gpu: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Set by `gpus: auto`: `auto` until the probe has been made, then its result."
    )
    workers: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None,
        description="Processes that train one trial together, each a share of every batch (DistributedDataParallel). "
        "Left out: one for each GPU where `gpus` is over 1, else one. They share `cpus` and `gpus`.",
    )
    concurrent: Annotated[int, Field(ge=1, le=100_000)] | None = None
    compile: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="torch.compile and CUDA graphs for the steps of training. `auto`: on GPUs, when the time of the "
        "first steps and what compiling has cost before say that it pays for the trial's length. Results agree within "
        "rounding; with `never` they repeat bit by bit on one machine. Each trial tells what was used and why.",
    )

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, data: Any) -> Any:
        """`gpus: auto` is a whole GPU of which the probe finds out how many trials it is enough for."""
        if isinstance(data, Mapping) and data.get("gpus") == "auto":
            return {**data, "gpus": 1.0, "trials_per_gpu": data.get("trials_per_gpu") or "auto"}
        return data

    @field_validator("gpus", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("A number of GPUs, without quotes, or auto")
        return value

    @property
    def processes(self) -> int:
        """How many train one trial."""
        return self.workers or max(1, int(self.gpus))

    @field_validator("workers")
    @classmethod
    def _a_gpu_each(cls, value: int | None, info: ValidationInfo) -> int | None:
        gpus = info.data.get("gpus")
        if value is not None and gpus and value != max(1, gpus):
            raise ValueError(f"With {gpus:g} gpus it is {max(1, gpus):g}: each worker takes one GPU")
        return value

    @model_validator(mode="after")
    def _shares_agree(self) -> Self:
        shared = self.trials_per_gpu
        if shared == "auto" and self.gpus != 1:
            raise ValueError("trials_per_gpu is set by `gpus: auto`")
        if isinstance(shared, int) and self.gpus != share_of_gpu(shared):
            raise ValueError(f"{shared} trials_per_gpu are {share_of_gpu(shared):g} gpus each")
        return self

    @field_validator("cpus", "gpus")
    @classmethod
    def _schedulable(cls, value: float, info: ValidationInfo) -> float:
        """What Ray can hand out: steps of 0.0001, and whole GPUs above one."""
        if abs(value * 10_000 - round(value * 10_000)) > 1e-6:
            raise ValueError("At most four decimals")
        if info.field_name == "gpus" and value > 1 and value != int(value):
            raise ValueError("Above one GPU only whole ones, as in 2; a share of one is below 1, as in 0.25")
        return value


class ConfirmSpec(Part):
    """Retrain the best of the front with several seeds and report mean ± s.d. on the test split."""

    top: Annotated[int, Field(ge=1, le=100)] = 3
    seeds: Annotated[int, Field(ge=2, le=100)] = 3
    baseline_seeds: Annotated[int, Field(ge=2, le=100)] | None = Field(default=None, description="Default: as `seeds`.")
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="Default: as in the search."
    )
    previous: Annotated[list[dict[str, Any]], Field(max_length=100)] = Field(
        default_factory=list,
        description="Placements to confirm too: those that the search before has confirmed, filled in by a schedule "
        "when its data or its training have changed.",
    )


class SearchSpec(Part):
    """One search: over what, on what data, judged how, with which budget."""

    name: Name
    dataset: DatasetSpec
    backbone: BackboneSpec = Field(default_factory=BackboneSpec)
    init: InitSpec = Field(default_factory=InitSpec)
    space: SpaceSpec = Field(default_factory=SpaceSpec)
    objectives: Annotated[list[ObjectiveSpec], Field(min_length=2, max_length=4)] = Field(
        default_factory=lambda: [ObjectiveSpec(metric="top1", goal="max"), ObjectiveSpec(metric="macs", goal="min")]
    )
    constraints: Annotated[list[ConstraintSpec], Field(max_length=10)] = Field(default_factory=list)
    controls: bool = Field(
        default=True, description="Train the published placements of the space's modules beside the search."
    )
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    strategy: StrategySpec = Field(default_factory=StrategySpec)
    budget: BudgetSpec = Field(default_factory=BudgetSpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    confirm: ConfirmSpec | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    tags: Annotated[list[Tag], Field(max_length=20)] = Field(default_factory=list)
    owner: Name | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> SearchSpec:
        """The spec in `data` (decoded JSON or YAML); SpecError with every problem found."""
        if not isinstance(data, Mapping):
            raise SpecError.one("", "A search is an object with at least `name` and `dataset`.")
        problems = list(unfit(data))
        if problems:
            raise SpecError(problems)
        try:
            return cls.model_validate(text_keys(data))
        except ValidationError as error:
            raise SpecError(list(wording.problems(error, cls))[:MOST_PROBLEMS]) from None

    @classmethod
    def parse_stored(cls, data: Mapping[str, Any]) -> SearchSpec:
        """The spec of a stored search (`SearchPlan.resolved`); SpecError for a version that this code does not know."""
        version = data.get("spec_version")
        if version != SPEC_VERSION:
            raise SpecError.one("spec_version", f"Version {shown(version)} is not known here.", [str(SPEC_VERSION)])
        return cls.parse({name: value for name, value in data.items() if name != "spec_version"})
