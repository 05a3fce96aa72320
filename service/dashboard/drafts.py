"""A request while it is written: YAML and JSON beside each other, what is wrong with it, and what it would mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from db.engine import reading
from search.architecture import Backbone
from search.errors import Problem, SpecError
from search.plan import SearchPlan
from search.sites import Site, StageGeometry
from search.spec import SearchSpec
from service import formats, yaml_text
from service.errors import ApiError
from service.previews import logic as previews
from service.previews.schemas import Decision, Preview
from service.searches import submission
from service.state import Service
from service.strips import make_strip, module_colour, module_name
from service.summaries import written_kinds

LONGEST = 50_000
"""Characters of a request's text."""


@dataclass(frozen=True)
class DrawnStage:
    """A stage of the network as it is drawn. sites: for each block whether some choice fills it; end: the same.

    shape: channels × height × width; choices, least, greatest: of the decision that is made for it (MACs it adds).
    """

    number: int
    shape: str
    sites: tuple[bool, ...]
    end: bool
    choices: int
    least: str
    greatest: str
    shared: bool


@dataclass(frozen=True)
class Meaning:
    """A valid draft in words and numbers."""

    count: str
    sites: int
    macs: str
    params: str
    trials: int
    trials_words: str
    time: str
    time_words: str
    kinds: tuple[tuple[str, int], ...]
    stages: tuple[DrawnStage, ...]
    controls: tuple[str, ...]
    waiting_reason: str | None


@dataclass(frozen=True)
class Draft:
    """request: as JSON, None for a text that is no YAML. text: the YAML."""

    text: str
    request: Any
    problems: tuple[dict[str, Any], ...] = ()


def read(house: Service, data: Any) -> Draft:
    """The draft that {"text": YAML} or {"request": JSON} describes. ApiError 422 for anything else."""
    if not isinstance(data, Mapping) or len(data) != 1 or not {"text", "request"} & set(data):
        raise ApiError(422, "Send either the text or the request.")
    if "request" in data:
        request = data["request"]
        return _checked(house, as_yaml(request), request)
    text = data["text"]
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ApiError(422, f"The text may have {LONGEST:,} characters.")
    try:
        request = yaml_text.load(text)
    except ValueError as error:
        return Draft(text, None, (_problem(str(error)),))
    return _checked(house, text, request)


def as_yaml(request: Any) -> str:
    return yaml.safe_dump(request, sort_keys=False, allow_unicode=True, default_flow_style=None, width=76)


def concise(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A stored request without what is at its default, to start another from."""
    whole = {name: value for name, value in spec.items() if name not in ("spec_version", "owner")}
    usual = SearchSpec.parse({"name": "x", "dataset": {"name": "x"}}).model_dump(mode="json")
    return {name: _pruned(value, usual.get(name)) for name, value in whole.items() if value != usual.get(name)}


def repeated(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A stored request as a schedule's template: its fires have names, a priority and a front before of their own."""
    template = {key: value for key, value in concise(spec).items() if key != "priority"}
    template["name"] = f"{name[:170]} {{{{ fire_at }}}}"
    if "strategy" in template:
        template["strategy"] = {key: value for key, value in template["strategy"].items() if key != "previous"}
    if "init" in template:  # weights of that name as they are at a fire: pinned, new ones would fail every one
        template["init"] = {key: value for key, value in template["init"].items() if key != "fingerprint"}
    if "confirm" in template:
        template["confirm"] = {key: value for key, value in template["confirm"].items() if key != "previous"}
    return template


def _pruned(value: Any, usual: Any) -> Any:
    if not (isinstance(value, dict) and isinstance(usual, dict)):
        return value
    kept = {name: item for name, item in value.items() if name == "name" or name not in usual or item != usual[name]}
    return {name: item for name, item in kept.items() if item is not None}


def _problem(message: str) -> dict[str, Any]:
    return {"field": "", "message": message, "choices": []}


def _checked(house: Service, text: str, request: Any) -> Draft:
    if not _is_json(request):
        return Draft(text, None, (_problem("Dates and other tags are not allowed."),))
    try:
        with reading(house.engine) as session:
            submission.check(session, request)
    except SpecError as error:
        return Draft(text, request, tuple(_told(problem) for problem in error.problems))
    return Draft(text, request)


def meaning(house: Service, request: Any) -> tuple[Meaning | None, list[dict[str, Any]]]:
    """What a request would mean, or what is wrong with it; may count costs, which takes seconds the first time."""
    try:
        preview = previews.make(house, request)
        with reading(house.engine) as session:
            plan = submission.check(session, request)
    except SpecError as error:
        return None, [_told(problem) for problem in error.problems]
    return _meaning(plan, preview), []


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float | bool)


def _told(problem: Problem) -> dict[str, Any]:
    told = asdict(problem)
    return told | {"choices": list(problem.choices)}


def _meaning(plan: SearchPlan, preview: Preview) -> Meaning:
    budget = preview.budget
    parts = [f"{budget.explore} to explore", f"{budget.controls} controls"]
    parts += [f"{budget.confirm} to confirm"] if budget.confirm else []
    estimate = preview.estimate
    return Meaning(
        count=formats.whole(int(preview.count)),
        sites=preview.sites,
        macs=_between(preview.cost["macs"].least, preview.cost["macs"].greatest, "MAC"),
        params=_between(preview.cost["params"].least, preview.cost["params"].greatest, ""),
        trials=budget.total,
        trials_words=", ".join(parts) + ("; covers the whole space" if budget.covers_space else ""),
        time="–" if estimate is None else formats.duration(estimate.seconds),
        time_words="known after the first trials of this backbone on this data"
        if estimate is None
        else f"of computing{' at most' if plan.stopping else ''}, "
        f"from {formats.plural(estimate.based_on, 'earlier trial')}",
        kinds=tuple((module_name(kind), module_colour(kind)) for kind in sorted(written_kinds(preview.spec))),
        stages=_stages(plan.backbone, plan.task.input_shape, preview.decisions),
        controls=tuple(make_strip(control.architecture).words for control in preview.controls),
        waiting_reason=preview.waiting_reason,
    )


def _between(least: int, greatest: int, unit: str) -> str:
    low, high = formats.scaled(least, unit), formats.scaled(greatest, unit)
    return low if low == high else f"{low} to {high}"


def _stages(backbone: Backbone, shape: tuple[int, int, int], decisions: list[Decision]) -> tuple[DrawnStage, ...]:
    found = []
    for stage in backbone.stages(shape):
        decision = next(each for each in decisions if stage.number in each.stages)
        found.append(_stage(stage, decision))
    return tuple(found)


def _stage(stage: StageGeometry, decision: Decision) -> DrawnStage:
    sites = [site for site in map(Site.parse, decision.sites) if site.stage == stage.number]
    blocks = {site.block for site in sites if site.position != "stage_end"}
    last = stage.blocks[-1].points
    point = next(iter(last.get("stage_end") or last.get("residual") or next(iter(last.values()))))
    adds = decision.adds["macs"]
    return DrawnStage(
        number=stage.number,
        shape=" × ".join(map(str, point.shape)),
        sites=tuple(number in blocks for number in range(1, len(stage.blocks) + 1)),
        end=any(site.position == "stage_end" for site in sites),
        choices=decision.choices,
        least=formats.scaled(adds.least, "MAC"),
        greatest=formats.scaled(adds.greatest, "MAC"),
        shared=len(decision.stages) > 1,
    )
