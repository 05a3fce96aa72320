"""Files that trials have left in the store: what is where. The files themselves are the workers' business."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.ids import uuid7
from db.models import Artifact, Trial
from db.search_rows import fence
from db.trials import get as get_trial
from db.upserts import insert_into

WEIGHTS = "weights"
"""The kind of a trained network's weights."""


def add(session: Session, trial_id: str, attempt: int, *, kind: str, path: str, bytes: int, sha256: str) -> Artifact:
    """Records a file of a trial; one of the same kind is replaced. Raises NotFound and Fenced."""
    given = {"id": uuid7(), "trial_id": trial_id, "kind": kind, "path": path, "bytes": bytes, "sha256": sha256}
    values = checks.row(Artifact, given | {"created_at": DatabaseTime()})
    fence(session, get_trial(session, trial_id).search_id, attempt)
    statement = insert_into(session, Artifact).values(**values)
    changed = {name: statement.excluded[name] for name in ("path", "bytes", "sha256", "created_at")}
    upsert = statement.on_conflict_do_update(index_elements=["trial_id", "kind"], set_=changed).returning(Artifact)
    return session.scalars(upsert, execution_options={"populate_existing": True}).one()


def of_trial(session: Session, trial_id: str) -> list[Artifact]:
    """The files of a trial by kind; none for an unknown trial."""
    return list(session.scalars(select(Artifact).where(Artifact.trial_id == trial_id).order_by(Artifact.kind)))


def of_search(session: Session, search_id: str) -> list[Artifact]:
    """The files of all trials of a search, oldest first."""
    statement = select(Artifact).join(Trial, Trial.id == Artifact.trial_id).where(Trial.search_id == search_id)
    return list(session.scalars(statement.order_by(Artifact.created_at, Artifact.id)))


def remove(session: Session, artifact_ids: Sequence[str]) -> int:
    """Forgets files and returns how many of them were known. They are to be removed from the store afterwards."""
    gone = 0
    for start in range(0, len(artifact_ids), 500):
        statement = delete(Artifact).where(Artifact.id.in_(artifact_ids[start : start + 500])).returning(Artifact.id)
        gone += len(session.execute(statement.execution_options(synchronize_session=False)).all())
    return gone


def any_known(session: Session) -> bool:
    """Whether any file is known."""
    return session.scalars(select(Artifact.id).limit(1)).first() is not None
