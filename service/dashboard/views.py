"""What the pages show, read in one database state and with the same functions as the REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from sqlalchemy.orm import Session

from db import catalog, searches, trials, views
from db.models import Search, Trial
from db.paging import Cursor, Page
from service import summaries
from service.dashboard.drawing import Drawing, sample
from service.fronts import logic as fronts
from service.searches import logic
from service.strips import module_colour, module_name
from service.summaries import FrontView, Row
from service.trials.schemas import TrialOut

SEARCHES_SHOWN = 50
TRIALS_SHOWN = 50
ACTIVE = frozenset({"queued", "running", "paused"})
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """One search in the list. planned: how many trials it will have."""

    search: Json
    planned: int
    best: Row | None


@dataclass(frozen=True)
class Kind:
    """A module in the legend."""

    name: str
    sample: Drawing


@dataclass(frozen=True)
class SearchView:
    """One search's page. planned: how many trials it will have; beside: baseline and controls off the front."""

    search: Json
    view: FrontView
    best: Row | None
    beside: tuple[Row, ...]
    trials: list[Row]
    next: Cursor | None
    planned: int
    seconds_left: float | None
    kinds: tuple[Kind, ...]
    spec_text: str

    @property
    def active(self) -> bool:
        return self.search["status"] in ACTIVE


def search_cards(session: Session, after: Cursor | None) -> tuple[list[Card], Cursor | None]:
    """The newest searches, or those after a cursor."""
    page: Page[Search] = searches.page(session, after=after, limit=SEARCHES_SHOWN)
    controls = views.control_trials(session, [search.id for search in page.items])
    best_ids = [search.best_trial_id for search in page.items if search.best_trial_id]
    best = views.trials_by_id(session, best_ids)
    known = trials.architectures(session, [trial.architecture_key for trial in best.values()])
    cards = []
    for search in logic.shown(session, page.items):
        found = search.best and best.get(search.best.id)
        base = next((t for t in controls[search.id] if t.role == "baseline"), None)
        row = _row(found, known[found.architecture_key].document, base) if found else None
        cards.append(
            Card(
                search.model_dump(mode="json"),
                summaries.planned_trials(search.spec, search.phase, len(controls[search.id])),
                row,
            )
        )
    return cards, page.next


def search_view(session: Session, search_id: str, after: Cursor | None) -> SearchView:
    """Raises NotFound."""
    search = logic.one(session, search_id).model_dump(mode="json")
    shape = summaries.input_shape(search["spec"], (row.document for row in catalog.datasets(session)))
    answer = fronts.make(session, search_id, None).model_dump(mode="json")
    front = summaries.front_view(answer, shape, _params(session, answer))
    page = trials.page(session, search_id, sort="number", descending=True, after=after, limit=TRIALS_SHOWN)
    known = trials.architectures(session, [trial.architecture_key for trial in page.items])
    items = [TrialOut.of(t, known[t.architecture_key]).model_dump(mode="json") for t in page.items]
    rows = summaries.trial_rows(items, answer["baseline"], [row.trial_id for row in front.rows], shape)
    on_front = {row.trial_id for row in front.rows}
    controls = len(views.control_trials(session, [search_id])[search_id])
    beside = tuple(row for row in (front.baseline, *front.controls) if row and row.trial_id not in on_front)
    return SearchView(
        search=search,
        view=front,
        best=_best(front),
        beside=beside,
        trials=rows,
        next=page.next,
        planned=summaries.planned_trials(search["spec"], search["phase"], controls),
        seconds_left=logic.progress(session, search_id).seconds_left,
        kinds=_kinds(search["spec"], [*front.rows, *beside, *rows]),
        spec_text=yaml.safe_dump(search["spec"], sort_keys=False, allow_unicode=True),
    )


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


def _params(session: Session, front: Json) -> dict[str, int | None]:
    """Parameters of what a front shows; its own values are those of its axes."""
    shown = [*front["points"], *front["controls"], *([front["baseline"]] if front["baseline"] else [])]
    found = views.trials_by_id(session, [point["trial_id"] for point in shown])
    return {trial_id: trial.params for trial_id, trial in found.items()}


def _best(front: FrontView) -> Row | None:
    return max(front.rows, key=lambda row: row.top1 or 0.0, default=None)


def _kinds(spec: Json, rows: Sequence[Row]) -> tuple[Kind, ...]:
    """The modules that occur, for the legend; before the first trial those of the request."""
    kinds = {mark.kind for row in rows for mark in row.strip.marks} or summaries.written_kinds(spec)
    return tuple(Kind(module_name(kind), sample(module_colour(kind), 1.0)) for kind in sorted(kinds))
