"""What earlier attempts at a search have left in SQL, as the run takes it in."""

from __future__ import annotations

from typing import cast

from db.metrics import METRIC_COLUMNS
from db.models import Trial
from search.architecture import Architecture
from search.plan import SearchPlan
from workers.evaluation import evaluation_key
from workers.orders import Deaths, Order, Phase, Role


def unfinished_order(plan: SearchPlan, row: Trial, architecture: Architecture) -> Order:
    """The order to start a trial again that has not come to its end."""
    proposal = dict(row.proposal or {})
    genotype = proposal.pop("genotype", None)
    return Order(
        cast(Phase, row.phase),
        cast(Role, row.role),
        architecture,
        row.seed,
        row.epochs_planned,
        evaluation_key(plan, architecture, seed=row.seed, epochs=row.epochs_planned, test=row.phase == "confirm"),
        genotype and tuple(genotype),
        proposal,
        trial_id=row.id,
        number=row.number,
        failures=row.retried or {},
        deaths=Deaths(**(row.deaths or {})),
        epochs_done=row.epochs,
    )


def metrics_of(row: Trial) -> dict[str, float]:
    """The metrics of a trial that has succeeded."""
    own = {name: getattr(row, name) for name in METRIC_COLUMNS}
    known = {**row.metrics, **own}
    return {name: float(value) for name, value in known.items() if isinstance(value, (int, float))}
