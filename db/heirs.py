"""What a search that is deleted hands down: files of its trials whose results another search has taken over."""

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, aliased

from db.models import Artifact, Evaluation, Trial
from db.models.base import Base


def hand_down(session: Session, search_id: str) -> None:
    """Gives the files of each trial of the search to the oldest trial of another search that has its result, and makes
    the others, and whoever reuses the result later, refer to that one. To be called before the search is deleted."""
    for source, heir in _heirs(session, search_id).items():
        _set(session, Artifact, Artifact.trial_id == source, trial_id=heir)
        _set(session, Trial, (Trial.reused_from == source) & (Trial.id != heir), reused_from=heir)
        _set(session, Evaluation, Evaluation.trial_id == source, trial_id=heir)


def _heirs(session: Session, search_id: str) -> dict[str, str]:
    """For each trial of the search that has files and is needed elsewhere, the trial that gets them."""
    source, heir = aliased(Trial), aliased(Trial)
    found = (
        select(source.id, heir.id)
        .join(Artifact, Artifact.trial_id == source.id)
        .join(heir, heir.reused_from == source.id)
        .where(source.search_id == search_id, heir.search_id != search_id)
        .order_by(heir.id.desc())
        .with_for_update(of=heir, key_share=True)  # so that it is not deleted before it has them
    )
    return dict(session.execute(found).all())  # of several the last one, which is the oldest


def _set(session: Session, model: type[Base], which: ColumnElement[bool], **values: str) -> None:
    session.execute(update(model).where(which).values(**values).execution_options(synchronize_session=False))
