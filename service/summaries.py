"""What a front and its trials say, row by row and in a sentence: made once, shown by the dashboard and the terminal.

Works on the JSON of the REST API, so that both show exactly what it answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service import formats
from service.strips import Strip, make_strip

Json = Mapping[str, Any]
NOISE = "One seed each: differences under about ±1 point of accuracy are noise."
"""On cluttered-digits, seeds of one architecture differ by about 0.5 points (s.d.) of accuracy."""
LEAST_GAIN = 0.01
ROLES = {"baseline": "baseline", "control": "control", "confirm": "confirmed"}


@dataclass(frozen=True)
class Row:
    """One trial as a table shows it. gain: over the baseline, a fraction; extra: MACs over the baseline's, as a share.

    The texts (…_text) are what is shown; numbers are for sorting and plots.
    """

    trial_id: str
    number: int
    role: str
    status: str
    strip: Strip
    label: str
    top1: float | None
    macs: int | None
    params: int | None
    gain: float | None
    extra: float | None
    seconds: float | None
    epochs: int
    epochs_planned: int
    error: str
    reused: bool
    on_front: bool

    @property
    def top1_text(self) -> str:
        return formats.percent(self.top1)

    @property
    def gain_text(self) -> str:
        return "" if self.role == "baseline" else formats.points(self.gain)

    @property
    def macs_text(self) -> str:
        return formats.macs(self.macs)

    @property
    def extra_text(self) -> str:
        if self.extra is None or self.role == "baseline":
            return ""
        return "< 0.01 %" if 0 < self.extra < 0.00005 else f"{formats.signed(100 * self.extra, 2)} %"

    @property
    def params_text(self) -> str:
        return formats.scaled(self.params)

    @property
    def time_text(self) -> str:
        return formats.duration(self.seconds)


@dataclass(frozen=True)
class FrontView:
    """A front for people. rows: from the cheapest to the most accurate; controls and baseline beside it."""

    rows: tuple[Row, ...]
    baseline: Row | None
    controls: tuple[Row, ...]
    hypervolume: float | None
    headline: str


def front_view(
    front: Json, shape: Sequence[int] | None = None, params: Mapping[str, int | None] | None = None
) -> FrontView:
    """The answer of GET searches/{id}/front, ready to be shown. params: of its trials by id, where they are known."""
    front = _with_params(front, params or {})
    base = front.get("baseline")
    trained = len(front["points"]) + front["dominated"]["count"] - (base is not None)
    rows = tuple(_rows(front["points"], base, shape, on_front=True))
    ids = {row.trial_id for row in rows}
    baseline = next(iter(_rows([base], base, shape, on_front=base["trial_id"] in ids)), None) if base else None
    controls = tuple(_rows([c for c in front["controls"] if c["trial_id"] not in ids], base, shape, on_front=False))
    return FrontView(rows, baseline, controls, front.get("hypervolume"), headline(rows, baseline, trained))


def trial_rows(
    trials: Iterable[Json], baseline: Json | None, front_ids: Iterable[str], shape: Sequence[int] | None
) -> list[Row]:
    """The items of GET searches/{id}/trials, ready to be shown."""
    ids = set(front_ids)
    return [_row(trial, trial, baseline and _values(baseline), shape, trial["id"] in ids) for trial in trials]


def headline(rows: Sequence[Row], baseline: Row | None, trained: int) -> str:
    """What the front says so far, with as much certainty as one seed each allows; empty when it says nothing.

    trained: how many placements it is the best of.
    """
    if baseline is None or baseline.top1 is None or not rows:
        return ""
    best = max(rows, key=lambda row: (row.top1 or 0.0, -(row.macs or 0)))
    if best.gain is None or best.role == "baseline" or best.gain <= 0:
        return f"None of {formats.plural(trained, 'placement')} beats the backbone without attention yet."
    cost = f"{best.extra_text} MACs" if best.extra else "no more MACs"
    doubt = " That is within what another seed may change." if best.gain < LEAST_GAIN else ""
    head = f"Best of {formats.plural(trained, 'placement')}: {best.strip.words}"
    return f"{head} – {best.gain_text} points for {cost}, one seed each.{doubt}"


def planned_trials(spec: Json, phase: str | None, controls: int) -> int:
    """How many trials a search will have had when its budget is spent.

    controls: those that are there. Until all of them have started it is reckoned with one per module of the request.
    """
    if phase in (None, "controls"):
        kinds = written_kinds(spec) if spec["controls"] else set()
        controls = max(controls, 1 + len(kinds))
    confirm = spec.get("confirm") or {}
    return int(spec["budget"]["trials"]) + controls + int(confirm.get("top", 0)) * int(confirm.get("seeds", 0))


def _kinds(modules: Any) -> set[str]:
    """The kinds that a request names, stacks included."""
    if isinstance(modules, str):
        return {modules} - {"none"}
    if isinstance(modules, Mapping):
        return {str(modules["kind"])} if "kind" in modules else set()
    return set().union(*(_kinds(item) for item in modules))


def written_kinds(spec: Json) -> set[str]:
    """The modules that a resolved request may place, those of single stages included."""
    parts = [spec["space"], *spec["space"]["stages"].values()]
    return set().union(*(_kinds(part["modules"]) for part in parts if part.get("modules")))


def input_shape(spec: Json, datasets: Iterable[Json]) -> tuple[int, int, int] | None:
    """C × H × W of a search's images, from its resolved request and the catalog; None for a data set that is gone."""
    from search.datasets import DatasetEntry

    wanted = dict(spec["dataset"])
    name = wanted.pop("name")
    for document in datasets:
        if document["name"] == name:
            fields = {key: document[key] for key in DatasetEntry.model_fields if key in document}
            return DatasetEntry.model_validate(fields).resolve(wanted).input_shape
    return None


def _with_params(front: Json, params: Mapping[str, int | None]) -> Json:
    def told(point: Json) -> Json:
        return {"params": params.get(point["trial_id"]), **point}

    base = front.get("baseline")
    lists = {name: [told(point) for point in front[name]] for name in ("points", "controls")}
    return {**front, **lists, "baseline": base and told(base)}


def _rows(points: Iterable[Json], base: Json | None, shape: Sequence[int] | None, *, on_front: bool) -> Iterable[Row]:
    return (_row(point, _values(point), base and _values(base), shape, on_front) for point in points)


def _values(point: Json) -> Json:
    """A point's metrics, wherever they stand: trials carry them directly."""
    found: Json = point.get("values", point)
    return found


def _row(item: Json, values: Json, base: Json | None, shape: Sequence[int] | None, on_front: bool) -> Row:
    top1, macs = values.get("top1"), values.get("macs")
    base_top1, base_macs = (base.get("top1"), base.get("macs")) if base else (None, None)
    error = item.get("error") or {}
    return Row(
        trial_id=item.get("trial_id") or item["id"],
        number=item["number"],
        role=item.get("role", "explore"),
        status=item.get("status", "succeeded"),
        strip=make_strip(item["architecture"], shape),
        label=item.get("label", ""),
        top1=top1,
        macs=macs,
        params=values.get("params", item.get("params")),
        gain=None if top1 is None or base_top1 is None else top1 - base_top1,
        extra=None if macs is None or not base_macs else (macs - base_macs) / base_macs,
        seconds=item.get("seconds"),
        epochs=item.get("epochs", 0),
        epochs_planned=item.get("epochs_planned", 0),
        error=error.get("message", "") if isinstance(error, dict) else str(error),
        reused=bool(item.get("reused_from")),
        on_front=on_front,
    )
