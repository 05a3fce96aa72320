"""Results that any search may reuse, and who is training one just now, so that nothing is trained twice."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.models import Evaluation
from db.upserts import insert_into


class Claim(NamedTuple):
    """`mine`: train it and call `finish`. `finished`: use its results. `busy`: another search trains it, ask again."""

    outcome: Literal["mine", "finished", "busy"]
    evaluation: Evaluation


def find(session: Session, key: str) -> Evaluation | None:
    """The finished evaluation of this key, if there is one."""
    statement = select(Evaluation).where(Evaluation.key == key, Evaluation.status == "finished")
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


def claim(
    session: Session,
    key: str,
    *,
    search_id: str,
    lease_seconds: float,
    architecture_key: str,
    dataset_fingerprint: str,
    conditions: Mapping[str, Any],
    epochs: int,
    seed: int,
    take_expired: bool = True,
) -> Claim:
    """Takes the right to train an evaluation unless it is finished or a living claim of another search stands.

    take_expired: also where the claim of another search has run out, as its driver seems to have died. What that had
    wanted to replace (see `retake`) counts again then.
    """
    values = {
        "key": key,
        "architecture_key": architecture_key,
        "dataset_fingerprint": dataset_fingerprint,
        "conditions": dict(conditions),
        "epochs": epochs,
        "seed": seed,
        "status": "claimed",
        "claimed_by": search_id,
        "claim_expires_at": DatabaseTime(lease_seconds),
    }
    statement = insert_into(session, Evaluation).values(**checks.row(Evaluation, values))
    free = or_(Evaluation.claimed_by.is_(None), Evaluation.claimed_by == search_id)
    if take_expired:
        abandoned = Evaluation.claim_expires_at <= DatabaseTime()
        free = or_(free, abandoned & Evaluation.results.is_(None))
    taken = statement.on_conflict_do_update(
        index_elements=["key"],
        set_={"claimed_by": search_id, "claim_expires_at": DatabaseTime(lease_seconds)},
        where=(Evaluation.status == "claimed") & free,
    )
    options = {"populate_existing": True}
    while True:  # between the two statements its owner may have given the claim back
        mine = session.scalars(taken.returning(Evaluation), execution_options=options).one_or_none()
        if mine is not None:
            return Claim("mine", mine)
        there = session.scalars(
            select(Evaluation).where(Evaluation.key == key), execution_options=options
        ).one_or_none()
        if there is None:
            continue
        if there.status == "finished":
            return Claim("finished", there)
        if not (take_expired and there.results is not None and _give_back(session, Evaluation.key == key, abandoned)):
            return Claim("busy", there)


def retake(session: Session, key: str, *, search_id: str, lease_seconds: float) -> bool:
    """Takes the right to train a finished evaluation again, whose result is of no use to the search: `finish` replaces
    it, and giving the claim back leaves it. False when it is not finished any more, such as when another search has
    done the same."""
    values = {"status": "claimed", "claimed_by": search_id, "claim_expires_at": DatabaseTime(lease_seconds)}
    taken = session.execute(
        update(Evaluation)
        .where(Evaluation.key == key, Evaluation.status == "finished")
        .values(**values)
        .returning(Evaluation.key)
        .execution_options(synchronize_session=False)
    )
    return taken.scalar_one_or_none() is not None


def renew(session: Session, search_id: str, lease_seconds: float) -> None:
    """Lengthens all claims of a search: call it with the search's own heartbeat."""
    statement = update(Evaluation).where(Evaluation.claimed_by == search_id, Evaluation.status == "claimed")
    statement = statement.values(claim_expires_at=DatabaseTime(lease_seconds))
    session.execute(statement.execution_options(synchronize_session=False))


def finish(session: Session, key: str, *, search_id: str, trial_id: str, results: Mapping[str, Any]) -> bool:
    """Publishes the results of an evaluation that the search had claimed. False when the claim was lost.

    A repeated call is true and changes nothing.
    """
    values = {"status": "finished", "results": dict(results), "trial_id": trial_id, "claim_expires_at": None}
    finished = session.execute(
        update(Evaluation)
        .where(Evaluation.key == key, Evaluation.status == "claimed", Evaluation.claimed_by == search_id)
        .values(checks.row(Evaluation, values))
        .values(finished_at=DatabaseTime(), claimed_by=None)
        .returning(Evaluation.key)
        .execution_options(synchronize_session=False)
    )
    if finished.scalar_one_or_none() is not None:
        return True
    there = find(session, key)
    return there is not None and there.trial_id == trial_id


def release(session: Session, key: str, *, search_id: str) -> None:
    """Gives a claim back without a result (the trial failed), so that others may try."""
    _give_back(session, Evaluation.key == key, Evaluation.claimed_by == search_id)


def release_all(session: Session, search_id: str) -> None:
    """Gives back all claims of a search."""
    _give_back(session, Evaluation.claimed_by == search_id)


def _give_back(session: Session, *conditions: ColumnElement[bool]) -> bool:
    """Ends claims: those on results that were to be replaced leave these as they were. Whether there were such."""
    claimed = (Evaluation.status == "claimed", *conditions)
    kept = update(Evaluation).where(*claimed, Evaluation.results.is_not(None)).returning(Evaluation.key)
    kept = kept.values(status="finished", claimed_by=None, claim_expires_at=None)
    restored = session.execute(kept.execution_options(synchronize_session=False)).all()
    session.execute(delete(Evaluation).where(*claimed).execution_options(synchronize_session=False))
    return bool(restored)
