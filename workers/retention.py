"""Which files of the store may go: decided from the rows of their trials, without touching anything.

The weights of a search's best trial, of its front, of its baseline and of the trials that confirmed the front are kept
as long as the search; so are those that a trial of another search has taken over and needs for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from db import retention, searches, trials
from db.errors import NotFound
from db.retention import TrialState
from search.errors import SpecError
from search.metrics import metric
from search.pareto import Objective, front, minimised
from search.spec import SearchSpec
from workers.storage.local import PARTIAL
from workers.storage.store import StoredFile

DAY_SECONDS = 86_400.0

log = structlog.get_logger()


@dataclass(frozen=True)
class TrialFiles:
    """The files of one trial, and what is known of it. recorded: paths that have a row among the artifacts."""

    state: TrialState
    files: Sequence[StoredFile]
    recorded: frozenset[str]

    @property
    def leftovers(self) -> list[StoredFile]:
        """What a trial that has ended does not need: beside its result everything, such as a checkpoint; without one
        what a process that was killed had begun to write. Nothing goes on with a trial that was stopped early."""
        if self.state.has_result or self.state.status == "stopped":
            return [file for file in self.files if file.path not in self.recorded]
        ended = self.state.age is not None
        return [file for file in self.files if ended and file.path.endswith(PARTIAL)]


@dataclass(frozen=True)
class Removal:
    """Files of one trial that may go. age: seconds since it ended."""

    trial_id: str
    age: float
    files: Sequence[StoredFile]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class Keepers:
    """Finds out which trials' weights a search needs. Remembers it until the search's next event."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, frozenset[str]]] = {}

    def needed(self, session: Session, search_id: str) -> frozenset[str]:
        """Ids of trials of the search; none for one that is gone."""
        try:
            search = searches.get(session, search_id)
        except NotFound:
            return frozenset()
        known = self._known.get(search_id)
        if known is None or known[0] != search.event_seq:
            kept = retention.marked_trials(session, search_id) | _on_front(session, search_id, search.spec)
            kept |= {search.best_trial_id} if search.best_trial_id else set()
            known = self._known[search_id] = (search.event_seq, frozenset(kept))
        return known[1]

    def forget_all_but(self, search_ids: Iterable[str]) -> None:
        """So that searches that are gone take no memory."""
        self._known = {search_id: self._known[search_id] for search_id in set(search_ids) & self._known.keys()}


def _on_front(session: Session, search_id: str, spec: Mapping[str, object]) -> set[str]:
    """The trials that no other beats; all of them where the spec cannot be read any more."""
    try:
        wanted = SearchSpec.parse_stored(dict(spec)).objectives
        known = [metric(objective.metric, "objectives") for objective in wanted]
    except SpecError as error:
        log.warning("janitor.spec_unreadable", search=search_id, error=str(error))
        return {trial.id for trial in trials.all_of(session, search_id)}
    objectives = [Objective(one.name, one.goal) for one in known]
    found = retention.results(session, search_id, [objective.metric for objective in objectives])
    best = front(minimised(list(found.values()), objectives))
    return {trial_id for trial_id, kept in zip(found, best, strict=True) if kept}


def of_no_use(found: Sequence[TrialFiles]) -> list[Removal]:
    """Files that trials have left behind and that are of no use to anybody."""
    return [Removal(one.state.id, one.state.age or 0.0, one.leftovers) for one in found if one.leftovers]


def expendable(session: Session, found: Sequence[TrialFiles], keepers: Keepers) -> list[Removal]:
    """What may go after a while, or earlier where room is short; oldest first.

    Recorded files of trials that nobody needs, and everything of trials without a result in searches that have ended:
    nobody goes on with those unless a user asks for it.
    """
    ended = {one.state.id: one for one in found if one.state.age is not None}
    with_result = {trial_id: one for trial_id, one in ended.items() if one.state.has_result and one.recorded}
    needed = _needed(session, with_result, keepers)
    removals = []
    for trial_id, one in ended.items():
        files = [file for file in one.files if file not in one.leftovers]
        wanted = trial_id in needed if one.state.has_result else not one.state.over
        if files and not wanted:
            removals.append(Removal(trial_id, one.state.age or 0.0, files))
    return sorted(removals, key=lambda removal: (-removal.age, removal.trial_id))


def _needed(session: Session, found: Mapping[str, TrialFiles], keepers: Keepers) -> set[str]:
    """Those of the trials whose weights a search needs, their own or one that has taken their result over."""
    needed = {i for i, one in found.items() if i in keepers.needed(session, one.state.search_id)}
    others = retention.reuses(session, found.keys() - needed)
    return needed | {source for source, reuser, search_id in others if reuser in keepers.needed(session, search_id)}


def overdue(removals: Sequence[Removal], keep_days: float) -> list[Removal]:
    """Those of trials that ended longer ago."""
    return [removal for removal in removals if removal.age > keep_days * DAY_SECONDS]


def making_room(removals: Sequence[Removal], excess: int) -> list[Removal]:
    """The first of them that together have `excess` bytes, or all."""
    chosen = []
    for removal in removals:
        if excess <= 0:
            break
        chosen.append(removal)
        excess -= removal.bytes
    return chosen
