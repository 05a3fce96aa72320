"""What the pages show, read in one database state and with the same functions as the REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import catalog, searches, trials, views
from db.errors import NotFound
from db.models import Search, Trial
from db.paging import Cursor, Page
from search.pareto import minimised
from service import summaries
from service.dashboard import table
from service.dashboard.drawing import Drawing, sample
from service.effects import logic as effects
from service.fronts import logic as fronts
from service.fronts.columns import columns
from service.fronts.pictures import draw
from service.searches import logic
from service.strips import module_colour, module_name
from service.summaries import FrontView, Row

SEARCHES_SHOWN = 50
SMALL = (84, 30)
ACTIVE = frozenset({"queued", "running", "paused"})
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """One search in the list. planned: how many trials it will have. small: its front as a line, in a box of SMALL."""

    search: Json
    planned: int
    best: Row | None
    small: str


@dataclass(frozen=True)
class Kind:
    """A module in the legend."""

    name: str
    sample: Drawing


@dataclass(frozen=True)
class SearchView:
    """One search's page. planned: how many trials it will have; beside: baseline and controls off the front.

    quality: the metric that effects are about; finding: what was learnt, "" where the data support nothing;
    metrics: what the front may be drawn on.
    """

    search: Json
    front: Json
    view: FrontView
    best: Row | None
    beside: tuple[Row, ...]
    planned: int
    kinds: tuple[Kind, ...]
    quality: str
    finding: str
    shape: tuple[int, int, int] | None
    spec_text: str

    @property
    def active(self) -> bool:
        return self.search["status"] in ACTIVE


@dataclass(frozen=True)
class Filter:
    """What the list shows. tag, owner, name: "" for all; status: the same; sort: a column, `-` before: descending."""

    status: str = ""
    tag: str = ""
    owner: str = ""
    name: str = ""
    sort: str = "-created_at"

    @property
    def plain(self) -> bool:
        """Whether nothing is left out."""
        return not (self.status or self.tag or self.owner or self.name)


def search_page(session: Session, wanted: Filter, after: Cursor | None) -> Page[Search]:
    """A page of the searches that the filter lets by."""
    return searches.page(
        session, status=wanted.status or None, tag=wanted.tag or None, owner=wanted.owner or None,
        name_contains=wanted.name or None, sort=wanted.sort.removeprefix("-"),
        descending=wanted.sort.startswith("-"), after=after, limit=SEARCHES_SHOWN,
    )  # fmt: skip


def state_of(page: Page[Search]) -> tuple[object, ...]:
    """What tells whether its cards have changed: whatever changes in a search writes an event or a new version."""
    rows = [
        (row.id, row.version, row.event_seq, row.status, row.waiting_reason, row.best_trial_id, row.hypervolume)
        for row in page.items
    ]
    return (*rows, page.next)


def search_cards(session: Session, page: Page[Search]) -> list[Card]:
    """The searches of a page as the list shows them."""
    controls = views.control_trials(session, [search.id for search in page.items])
    best_ids = [search.best_trial_id for search in page.items if search.best_trial_id]
    best = views.trials_by_id(session, best_ids)
    known = trials.architectures(session, [trial.architecture_key for trial in best.values()])
    cards = []
    for search, row in zip(logic.shown(session, page.items), page.items, strict=True):
        found = search.best and best.get(search.best.id)
        base = next((t for t in controls[search.id] if t.role == "baseline"), None)
        cards.append(
            Card(
                search.model_dump(mode="json"),
                summaries.planned_trials(search.spec, search.phase, len(controls[search.id])),
                _row(found, known[found.architecture_key].document, base) if found else None,
                _small(session, row),
            )
        )
    return cards


def _small(session: Session, search: Search) -> str:
    """The front's staircase as an SVG path in a box of SMALL; "" for fewer than two points.

    The first two objectives, the better end of each up and to the left.
    """
    names = fronts.default_metrics(search)[:2]
    found = columns(session, search, names)
    picture = draw(found, fronts.objectives(names), None)
    points = minimised(found.values[picture.keep], fronts.objectives(names))
    if len(points) < 2:
        return ""
    width, height = SMALL
    low, high = points.min(axis=0), points.max(axis=0)
    places = (points - low) / np.where(high > low, high - low, 1.0)
    places = places[np.argsort(places[:, 1])]
    steps = [f"M{2 + places[0, 1] * (width - 6):.1f} {2 + places[0, 0] * (height - 4):.1f}"]
    steps += [f"H{2 + x * (width - 6):.1f}V{2 + y * (height - 4):.1f}" for y, x in places[1:]]
    return "".join(steps) + f"H{width}"


def search_view(session: Session, search_id: str) -> SearchView:
    """Raises NotFound."""
    row = searches.get(session, search_id)
    search = logic.shown(session, [row])[0].model_dump(mode="json")
    shape = shape_of(session, row)
    answer = fronts.make(session, search_id, None).model_dump(mode="json")
    front = summaries.front_view(answer, shape)
    on_front = {point.trial_id for point in front.rows}
    controls = len(views.control_trials(session, [search_id])[search_id])
    beside = tuple(point for point in (front.baseline, *front.controls) if point and point.trial_id not in on_front)
    told = effects.finding(session, row)
    return SearchView(
        search=search,
        front=answer,
        view=front,
        best=_best(front),
        beside=beside,
        planned=summaries.planned_trials(search["spec"], search["phase"], controls),
        kinds=_kinds(search["spec"], [*front.rows, *beside]),
        quality=effects.quality(row).metric,
        finding="" if told is None else told.sentence,
        shape=shape,
        spec_text=yaml.safe_dump(search["spec"], sort_keys=False, allow_unicode=True),
    )


def search_json(session: Session, search_id: str) -> Json:
    """A search as the API shows it. Raises NotFound."""
    found: Json = logic.one(session, search_id).model_dump(mode="json")
    return found


def trials_view(
    session: Session, search_id: str, view: table.View, after: Cursor | None, shape: Sequence[int] | None
) -> tuple[list[table.Line], Cursor | None]:
    """A page of the search's trials beside its baseline. Raises NotFound."""
    base = _baseline(session, search_id)
    search = searches.get(session, search_id)
    names = fronts.default_metrics(search)
    found = columns(session, search, names)
    picture = draw(found, fronts.objectives(names), fronts.bounds_of(search))
    front = set(found.numbers[picture.keep].tolist())
    lines, further = table.lines(session, search_id, view, after, base, front, shape)
    return lines, further


def shape_of(session: Session, search: Search) -> tuple[int, int, int] | None:
    """C × H × W of the search's images, where its data set is still there."""
    return summaries.input_shape(search.spec, (row.document for row in catalog.datasets(session)))


def numbered(session: Session, search_id: str, number: int) -> str:
    """The id of the trial that has this number. Raises NotFound."""
    statement = select(Trial.id).where(Trial.search_id == search_id, Trial.number == number)
    found = session.scalar(statement)
    if found is None:
        raise NotFound("trial", str(number))
    return found


def _baseline(session: Session, search_id: str) -> Json | None:
    """What rows are compared with."""
    found = views.control_trials(session, [search_id])[search_id]
    base = next((trial for trial in found if trial.role == "baseline"), None)
    return None if base is None else {"id": base.id, "top1": base.top1, "macs": base.macs}


def trial_row(session: Session, trial_id: str) -> Row:
    """One trial beside its search's baseline. Raises NotFound."""
    trial = trials.get(session, trial_id)
    base = next(
        (t for t in views.control_trials(session, [trial.search_id])[trial.search_id] if t.role == "baseline"), None
    )
    return _row(trial, trials.architectures(session, [trial.architecture_key])[trial.architecture_key].document, base)


def _row(trial: Trial, document: Json, base: Trial | None) -> Row:
    item = {
        name: getattr(trial, name)
        for name in ("id", "number", "role", "status", "top1", "macs", "params", "reused_from")
    }
    reference = None if base is None else {"id": base.id, "top1": base.top1, "macs": base.macs}
    return summaries.trial_rows([item | {"architecture": document}], reference, [], None)[0]


def _best(front: FrontView) -> Row | None:
    return max(front.rows, key=lambda row: row.top1 or 0.0, default=None)


def _kinds(spec: Json, rows: Sequence[Row]) -> tuple[Kind, ...]:
    """The modules that occur, for the legend; before the first trial those of the request."""
    kinds = {mark.kind for row in rows for mark in row.strip.marks} or summaries.written_kinds(spec)
    return tuple(Kind(module_name(kind), sample(module_colour(kind), 1.0)) for kind in sorted(kinds))
