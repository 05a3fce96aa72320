"""Tidies the store and what else grows: run by every dispatcher in a thread of its own, so that no tick waits for it.

Everything is safe to do twice, and so are several janitors at once. What is in the store but not below
`searches/<id>/<id>/` is nobody's business here.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import artifacts, idempotency, retention
from db.engine import reading, retrying
from db.errors import DatabaseUnavailable
from workers.retention import Keepers, Removal, TrialFiles, expendable, making_room, of_no_use, overdue
from workers.settings import WorkerSettings
from workers.storage.agreement import known_identity
from workers.storage.errors import StorageError
from workers.storage.identity import StoreIdentity, checked_store
from workers.storage.layout import SEARCHES, search_prefix
from workers.storage.limits import Agreement, Limits
from workers.storage.quota import GIGABYTE, tell, tell_no_limit
from workers.storage.store import Store, StoredFile

NEARLY_FULL = 0.9
"""Of its quota, from which on a store is looked at every `NEARLY_FULL_SECONDS`."""
NEARLY_FULL_SECONDS = 15.0
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_TRIAL_FILE = re.compile(f"{SEARCHES}/({_UUID})/({_UUID})/[^/]+")
_LOG = re.compile(rf"search-({_UUID})(\.\d+)?\.log")

log = structlog.get_logger()


@dataclass
class Tidied:
    """What a round has done. bytes: in the store afterwards. full: whether that is over the quota all the same."""

    searches: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    bytes: int = 0
    full: bool = False


class Janitor:
    """Tidies every `janitor_seconds`, from `start` to `stop`. owner: its dispatcher's name."""

    def __init__(self, engine: Engine, settings: WorkerSettings, identity: StoreIdentity, owner: str) -> None:
        self._engine = engine
        self._settings = settings
        self._identity = identity
        self._agreement = Agreement(engine, settings, owner)
        self._limits = Limits(owner, settings.keep_days, settings.storage_gb)
        self._keepers = Keepers()
        self._full = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.is_set():
            done = None
            try:
                done = self.round()
            except DatabaseUnavailable as error:
                log.warning("janitor.database_away", error=str(error))
            except StorageError as error:
                log.error("janitor.store_unusable", error=str(error))
            except Exception:  # a mistake here must not end the dispatcher, and the next round may go well
                log.exception("janitor.failed")
            self._ended.wait(self._pause(done))
        try:
            self._agreement.leave()
        except DatabaseUnavailable as error:  # it is forgotten when it has been silent for a while
            log.warning("janitor.database_away", error=str(error))

    def round(self) -> Tidied:
        """Tidies once. Raises StorageError, also when the store is not the database's any more; DatabaseUnavailable."""
        store = self._store()
        self._limits = self._agreement.limits()
        done = self._tidy(store)
        self._tell_quota(store, done)
        retrying(self._engine, idempotency.remove_expired)
        self._remove_logs()
        if done.searches or done.removed:
            log.info("janitor.tidied", searches=done.searches, files=len(done.removed), bytes=done.bytes)
        return done

    def _store(self) -> Store:
        """The store, which is made sure to be the one that the rows are about: nothing may be removed by mistake."""
        known = known_identity(self._engine)
        if known is None or known.id != self._identity.id:
            raise StorageError(f"{self._identity.url} is not the database's store any more: it has moved.")
        return checked_store(self._identity, "The janitor")

    def _tidy(self, store: Store) -> Tidied:
        done = Tidied()
        by_trial: dict[tuple[str, str], list[StoredFile]] = defaultdict(list)
        for file in store.list(SEARCHES):  # before the rows are read: a row is there before the first of its files
            done.bytes += file.bytes
            if owner := _TRIAL_FILE.fullmatch(file.path):
                by_trial[owner[1], owner[2]].append(file)
        with reading(self._engine) as session:
            gone = {search for search, _ in by_trial} - retention.existing(session, {search for search, _ in by_trial})
            left = [file for ids, files in by_trial.items() if ids[0] in gone for file in files]
            held = retention.holders(session, [file.path for file in left])
            kept = {trial: files for (search, trial), files in by_trial.items() if search not in gone}
            for file in left:
                if file.path in held:  # of a deleted search, and now of a trial that has taken the result over
                    kept.setdefault(held[file.path], []).append(file)
            found = _with_states(session, kept)
            removals = of_no_use(found)
            may_go = expendable(session, found, self._keepers)
        self._keepers.forget_all_but({search for search, _ in by_trial} | {one.state.search_id for one in found})
        for search_id in sorted(gone):
            files = [file for (owner, _), files in by_trial.items() if owner == search_id for file in files]
            self._remove_search(store, search_id, files, held, done)
        for removal in removals:
            self._remove(store, removal, done)
        late = overdue(may_go, self._limits.keep_days)
        for removal in late:
            self._remove(store, removal, done)
        if self._limits.storage_gb is not None:
            excess = done.bytes - int(self._limits.storage_gb * GIGABYTE)
            for removal in making_room(may_go[len(late) :], excess):
                self._remove(store, removal, done)
            done.full = done.bytes > self._limits.storage_gb * GIGABYTE
        return done

    def _remove_search(
        self, store: Store, search_id: str, files: Sequence[StoredFile], held: Collection[str], done: Tidied
    ) -> None:
        """Removes the files of a search that has been deleted, but those that are held."""
        if any(file.path in held for file in files):
            self._remove_files(store, [file for file in files if file.path not in held], done)
            return
        try:
            store.remove_all(search_prefix(search_id))
        except StorageError as error:  # a trial that has not ended yet still writes: the next round gets it
            log.warning("janitor.not_removed", search=search_id, error=str(error))
            return
        done.searches.append(search_id)
        done.bytes -= sum(file.bytes for file in files)

    def _remove(self, store: Store, removal: Removal, done: Tidied) -> None:
        """Forgets the files, then removes them: a file without a row goes in the next round, a row would stay."""
        paths = {file.path for file in removal.files}

        def forget(session: Session) -> None:
            known = artifacts.of_trial(session, removal.trial_id)
            artifacts.remove(session, [artifact.id for artifact in known if artifact.path in paths])

        retrying(self._engine, forget)
        self._remove_files(store, removal.files, done)

    def _remove_files(self, store: Store, files: Sequence[StoredFile], done: Tidied) -> None:
        for file in files:
            try:
                store.remove(file.path)
            except StorageError as error:
                log.warning("janitor.not_removed", path=file.path, error=str(error))
                continue
            done.removed.append(file.path)
            done.bytes -= file.bytes

    def _tell_quota(self, store: Store, done: Tidied) -> None:
        """Lets trials know how much they may still write."""
        limit_gb = self._limits.storage_gb
        if limit_gb is None:
            tell_no_limit(store)
        else:
            tell(store, done.bytes, int(limit_gb * GIGABYTE))
        if done.full and not self._full:
            why = "Nothing more may be removed: what trials would keep is refused. Delete searches or raise the limit."
            log.error("storage.full", url=store.url, bytes=done.bytes, limit_gb=limit_gb, why=why)
        elif self._full and not done.full:
            log.info("storage.has_room", url=store.url, bytes=done.bytes)
        self._full = done.full

    def _pause(self, done: Tidied | None) -> float:
        """Seconds to the next round: fewer where the store is about to be full, which trials alone do not notice."""
        seconds, limit_gb = self._settings.janitor_seconds, self._limits.storage_gb
        near = done is not None and limit_gb is not None and done.bytes > NEARLY_FULL * limit_gb * GIGABYTE
        return min(seconds, NEARLY_FULL_SECONDS) if near else seconds

    def _remove_logs(self) -> None:
        """Removes logs of drivers whose searches have been deleted."""
        logs = {path: match[1] for path in self._settings.log_folder.glob("search-*.log")
                if (match := _LOG.fullmatch(path.name))}  # fmt: skip
        if not logs:
            return
        with reading(self._engine) as session:
            known = retention.existing(session, logs.values())
        for path, search_id in logs.items():
            if search_id not in known:
                path.unlink(missing_ok=True)


def _with_states(session: Session, by_trial: Mapping[str, Sequence[StoredFile]]) -> list[TrialFiles]:
    """The trials that have files, as the database knows them; files of a trial that it does not know are left alone."""
    states = retention.states(session, by_trial)
    recorded: dict[str, set[str]] = defaultdict(set)
    for artifact in retention.artifacts_of(session, states):
        recorded[artifact.trial_id].add(artifact.path)
    return [
        TrialFiles(states[trial_id], files, frozenset(recorded[trial_id]))
        for trial_id, files in by_trial.items()
        if trial_id in states
    ]
