"""The searches that fires start: templates filled in and checked, each template once for many fires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session

from db import catalog, schedules
from db.ids import uuid7
from db.measured import Earlier
from db.models import Schedule
from search import previous, schedule, weights
from search.datasets import DatasetEntry, UnavailableDataset, unavailable_datasets
from search.plan import SearchPlan, make_plan
from search.spec import SPEC_VERSION, SearchSpec

ALIVE_SECONDS = 60.0
OF_ONE_FIRE = {"name", "tags", "priority", "owner"}
"""What of a request differs from fire to fire, and is looked up nowhere."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Known:
    """What requests are checked against, as it was at one moment."""

    datasets: Mapping[str, DatasetEntry]
    unavailable: Mapping[str, UnavailableDataset]
    weights: Mapping[str, str]

    @classmethod
    def read(cls, session: Session) -> Known:
        nodes = [node.document for node in catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)]
        return cls(_entries(session), unavailable_datasets(nodes), weights.published(nodes))

    def unread(self, template: Mapping[str, Any]) -> bool:
        """Whether the template's data set has grown by what nobody has read yet, so that its entry is out of date."""
        dataset = template.get("dataset")
        name = dataset.get("name") if isinstance(dataset, Mapping) else None
        found = self.unavailable.get(name) if isinstance(name, str) else None
        return found is not None and found.unread


@dataclass(frozen=True)
class FirePlans:
    """Plans of fires, all checked against the same; made anew for each tick."""

    known: Known
    _checked: dict[str, tuple[SearchPlan, dict[str, Any]]] = field(default_factory=dict)

    def search_of(self, session: Session, found: Schedule, fire_at: datetime, *, follows: bool) -> dict[str, Any]:
        """The columns of the search of a fire, with a fresh id. SpecError with everything that is wrong.

        follows: whether a search of the schedule has succeeded, so that its front may be tried first.
        """
        request = schedule.render(found.template, fire_at, found.zone, priority=found.priority, owner=found.owner)
        spec = SearchSpec.parse(request)
        plan, document = self._plan(spec)
        before = schedules.latest_result(session, found.id, before=fire_at) if follows else None
        if before is not None:
            asked = schedule.wants_previous(found.template)
            followed = previous.with_previous(plan, Earlier(session, before.id), asked=asked)
            document = document if followed is plan else followed.resolved()
        own = spec.model_dump(mode="json", include=OF_ONE_FIRE)
        return {
            "id": uuid7(), "name": spec.name, "spec": document | own, "spec_version": SPEC_VERSION, "owner": spec.owner,
            "tags": list(spec.tags), "priority": spec.priority, "schedule_id": found.id, "fire_at": fire_at,
        }  # fmt: skip

    def _plan(self, spec: SearchSpec) -> tuple[SearchPlan, dict[str, Any]]:
        """The plan of a request, and as it is stored; both of another fire's where that asked for the same."""
        key = spec.model_dump_json(exclude=OF_ONE_FIRE)
        if key not in self._checked:
            plan = make_plan(spec, self.known.datasets, self.known.weights, self.known.unavailable)
            self._checked[key] = (plan, plan.resolved())
        return self._checked[key]


def _entries(session: Session) -> dict[str, DatasetEntry]:
    """The data sets that workers have published, by name; those of a newer version are left out."""
    found = {}
    for row in catalog.datasets(session):
        try:
            found[row.name] = DatasetEntry.model_validate(row.document)
        except ValidationError:
            log.warning("schedule.dataset_unreadable", dataset=row.name)
    return found
