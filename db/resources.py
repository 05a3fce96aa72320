"""What a search's driver has found out about the resources of one trial, kept in the request it works on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from db import search_rows as rows


def settle(
    session: Session, search_id: str, attempt: int, resources: Mapping[str, Any], event: Mapping[str, Any]
) -> bool:
    """Puts `resources` into the search's spec, for good: a later driver finds them there. False when another attempt
    holds the search. event: what is told of it, as search.gpu_probed."""
    search = rows.held(session, search_id, attempt)
    if search is None:
        return False
    spec = {**search.spec, "resources": {**search.spec["resources"], **resources}}
    rows.change(session, search_id, {"spec": spec}, "search.gpu_probed", event)
    return True
