"""A request becomes a search: checked against what the workers have published, stored once per Idempotency-Key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from db import catalog, searches
from db.engine import reading, retrying
from db.models import Dataset, Node
from search import weights
from search.datasets import DatasetEntry, UnavailableDataset, unavailable_datasets
from search.errors import SpecError
from search.plan import SearchPlan, make_plan
from search.spec import SPEC_VERSION, SearchSpec
from service import logs
from service.cluster.logic import ALIVE_SECONDS
from service.once import Answer, once
from service.searches.schemas import SearchOut
from service.state import Service

SCOPE = "POST searches"


def submit(house: Service, data: Any, key: str | None) -> Answer:
    """Stores the search, or finds the one that `key` has made. SpecError, ApiError 409/422, DatabaseUnavailable."""
    refusal: SpecError | None = None
    plan, reason = None, None
    try:
        plan, reason = _accepted(house, data)
    except SpecError as error:
        refusal = error
    if plan is None and key is None:
        assert refusal is not None
        raise refusal

    def store(session: Session) -> Answer:
        def work() -> dict[str, Any]:
            if plan is None:
                assert refusal is not None
                raise refusal  # a key that was used before is answered all the same
            return _stored(session, plan, reason)

        return once(session, SCOPE, key, data, 201, work)

    return retrying(house.engine, store, attempts=3)


def check(session: Session, data: Any) -> SearchPlan:
    """The plan of a request. SpecError with everything that is wrong."""
    spec, unavailable = SearchSpec.parse(data), unusable_datasets(session)
    return make_plan(spec, published_datasets(session), published_weights(session), unavailable)


def published_datasets(session: Session) -> dict[str, DatasetEntry]:
    """What the workers have, by name; entries of a newer version that cannot be read are left out and logged."""
    found = {}
    for row in catalog.datasets(session):
        entry = _entry(row)
        if entry is not None:
            found[row.name] = entry
    return found


def unusable_datasets(session: Session) -> dict[str, UnavailableDataset]:
    """What living machines know and cannot use, by name."""
    nodes = catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)
    return unavailable_datasets(node.document for node in nodes)


def published_weights(session: Session) -> dict[str, str]:
    """Fingerprints by name of the initial weights that every living machine with that name agrees on."""
    nodes = catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)
    return weights.published(node.document for node in nodes)


def check_gpus(house: Service, plan: SearchPlan) -> None:
    """SpecError when a trial asks for more GPUs than the operator allows."""
    most = house.settings.max_gpus
    if most is not None and plan.spec.resources.gpus > most:
        raise SpecError.one("resources.gpus", f"At most {most:g} GPUs for a trial here.")


def check_probe(plan: SearchPlan, nodes: list[Node]) -> None:
    """SpecError for `gpus: auto` where there is no GPU to probe: neither waiting for one without end nor training on
    processors is what it asks for."""
    if plan.spec.resources.trials_per_gpu == "auto" and not any(node.document.get("gpus") for node in nodes):
        message = "No node has a GPU now, so `auto` cannot be measured: write 0 for CPUs, or a number to wait for GPUs."
        raise SpecError.one("resources.gpus", message, ("0", "0.25", "0.5", "1"))


def waiting_reason(gpus: float, nodes: list[Node]) -> str | None:
    """Why a trial of so many GPUs cannot start now, or None."""
    most = max((float(node.document.get("gpus") or 0) for node in nodes), default=0.0)
    if gpus <= most:
        return None
    has = f"the largest node has {most:g}" if nodes else "no node has joined yet"
    return f"A trial needs {gpus:g} GPUs; {has}."


def _accepted(house: Service, data: Any) -> tuple[SearchPlan, str | None]:
    with reading(house.engine) as session:
        plan = check(session, data)
        nodes = catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)
    check_gpus(house, plan)
    check_probe(plan, nodes)
    if plan.spec.constraints:
        plan.check_constraints(house.costs.of(plan))
    return plan, waiting_reason(plan.spec.resources.gpus, nodes)


def _stored(session: Session, plan: SearchPlan, reason: str | None) -> dict[str, Any]:
    spec = plan.spec
    search = searches.create(
        session,
        name=spec.name,
        spec=plan.resolved(),
        spec_version=SPEC_VERSION,
        owner=spec.owner,
        tags=spec.tags,
        priority=spec.priority,
        waiting_reason=reason,
    )
    return SearchOut.of(search, {}, None).model_dump(mode="json")


def _entry(row: Dataset) -> DatasetEntry | None:
    document: Mapping[str, Any] = row.document
    try:
        return DatasetEntry.model_validate(document)
    except ValidationError:
        logs.get("catalog").warning("dataset_unreadable", dataset=row.name)
        return None
