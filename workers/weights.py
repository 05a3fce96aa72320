"""Initial weights on this machine: told to the service, and tried on a search's backbone before anything trains."""

from __future__ import annotations

import structlog

from search.errors import SpecError
from search.plan import SearchPlan
from search.weights import VARIABLE, fingerprints, weights_folder

log = structlog.get_logger()


def readable_weights() -> dict[str, str]:
    """Fingerprints by name of the weights that requests may name here; none, and said so, when the operator's folder
    cannot be read or is ambiguous."""
    try:
        return fingerprints(weights_folder())
    except (OSError, SpecError) as error:
        log.warning("weights.unreadable", variable=VARIABLE, error=str(error))
        return {}


def check_weights(plan: SearchPlan) -> None:
    """SpecError when the weights of `plan` do not fit its backbone or are not on this machine (reads them)."""
    if plan.weights is not None:
        from search.loading import check_fit, read_registered

        check_fit(plan.backbone, plan.task, read_registered(plan.weights, weights_folder()))
