"""/api/v1/searches/{id}/trials and /api/v1/trials"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from db import artifacts, events, trials
from db.engine import reading
from db.models import PHASES, ROLES, TRIAL_STATUSES
from service.errors import bad_field
from service.queries import CursorText, Limit, sorting, words
from service.state import House, SearchId, TrialId
from service.trials.schemas import ArtifactOut, Artifacts, EpochOut, Epochs, TrialDetail, TrialOut, TrialPage

router = APIRouter(prefix="/api/v1", tags=["trials"])
SORTS = (
    "number", "top1", "top5", "loss", "test_top1", "latency_ms", "params", "macs", "seconds", "epochs", "seed",
)  # fmt: skip


@router.get("/searches/{search_id}/trials", response_model=TrialPage, summary="A search's trials")
def list_trials(
    house: House,
    search_id: SearchId,
    status: Annotated[str | None, Query(max_length=200, description="One or more statuses, comma-separated.")] = None,
    phase: Annotated[str | None, Query(max_length=50)] = None,
    role: Annotated[str | None, Query(max_length=50)] = None,
    sort: Annotated[str, Query(max_length=50, description="A metric; `-` before it: descending.")] = "number",
    limit: Limit = 100,
    cursor: CursorText = None,
) -> TrialPage:
    """Trials without a value of the sorted metric come last."""
    column, descending = sorting(sort, SORTS)
    filters: dict[str, Any] = {
        "status": words(status, "status", TRIAL_STATUSES),
        "phase": _one(phase, "phase", PHASES),
        "role": _one(role, "role", ROLES),
    }
    order = {"list": "trials", "search": search_id, "sort": sort, **filters}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        found = trials.page(session, search_id, sort=column, descending=descending, after=after, limit=limit, **filters)
        known = trials.architectures(session, list({trial.architecture_key for trial in found.items}))
    items = [TrialOut.of(trial, known.get(trial.architecture_key)) for trial in found.items]
    return TrialPage(items=items, next_cursor=house.cursors.write(found.next, order))


@router.get("/trials/{trial_id}", response_model=TrialDetail, summary="One trial")
def get_trial(house: House, trial_id: TrialId) -> TrialDetail:
    with reading(house.engine) as session:
        trial = trials.get(session, trial_id)
        known = trials.architectures(session, [trial.architecture_key])
        notes = events.notes_of_trial(session, trial.search_id, trial_id)
    return TrialDetail.told(trial, known.get(trial.architecture_key), notes)


@router.get("/trials/{trial_id}/epochs", response_model=Epochs, summary="A trial's learning curve")
def list_epochs(house: House, trial_id: TrialId) -> Epochs:
    with reading(house.engine) as session:
        return Epochs(items=[EpochOut.of(epoch) for epoch in trials.epochs(session, trial_id)])


@router.get("/trials/{trial_id}/artifacts", summary="What a trial has left in the store")
def list_artifacts(house: House, trial_id: TrialId) -> Artifacts:
    """Paths are relative to the store (ATTUNE_STORAGE of the workers), which the API need not reach."""
    with reading(house.engine) as session:
        trials.get(session, trial_id)
        return Artifacts(items=[ArtifactOut.of(artifact) for artifact in artifacts.of_trial(session, trial_id)])


def _one(text: str | None, field: str, choices: tuple[str, ...]) -> str | None:
    found = words(text, field, choices)
    if found is not None and len(found) > 1:
        raise bad_field(422, field, "One at a time.", choices)
    return None if found is None else found[0]
