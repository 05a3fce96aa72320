"""One trial inside its process, an epoch at a time, with its files in the store. Knows no Ray and no SQL.

It goes on from its newest checkpoint that verifies, else the one before, else from the start; where its weights' file
is there already it has come to its end before, and says so again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from workers.checkpoints import Checkpoint, Checkpoints, Finished
from workers.failures import note
from workers.reports import checked, epoch_of, number, result_of
from workers.storage.errors import StorageError
from workers.storage.identity import StoreIdentity, checked_store
from workers.storage.store import Store
from workers.training.errors import DivergedError, StateError, TrainingError
from workers.training.evaluators import Session, load_plugins, start_session
from workers.training.request import EpochResult, TrialRequest

MEASURED = ("train_loss", "val_loss", "top1", "top5")
"""What must be a number for an epoch to count."""
LASTING = ("checkpoint.failed", "data.slow", "compile.failed")
MOST_WAITING = 0.05
"""Share of an epoch that may be spent waiting for images before it is worth a word."""


class TrialRun:
    """The trial of an order. order: "trial_id", "gpus", "workers", "request" (a TrialRequest as JSON), "store" (url,
    id, prefix).

    where: this machine, for messages. start: what starts its session, if it is not trained by this process alone.
    Raises StorageError when the store is not the dispatcher's.
    """

    def __init__(
        self, order: dict[str, Any], where: str, start: Callable[[TrialRequest], Session] | None = None
    ) -> None:
        load_plugins()
        self._start = start or start_session
        self._workers = int(order.get("workers", 1))
        self._request = {**order["request"], "device": "cuda" if order["gpus"] else "cpu"}
        keep_to_share(order["gpus"])
        self._store = store_of(order, where)
        self._parsed = TrialRequest.from_json(self._request)
        self._checkpoints = Checkpoints(self._store, order["store"]["prefix"], self._parsed.key)
        self._notes: list[dict[str, Any]] = []
        self._said: set[str] = set()
        self._epochs: list[dict[str, Any]] = []
        self._restored: list[dict[str, Any]] = []
        self._finished = self._finished_before()
        if self._finished is None:
            self._session = self._resumed()

    def step(self) -> dict[str, Any]:
        """Trains one epoch; what the driver is to know of it.

        epoch: its numbers. restored: those of epochs before, which the driver may not know yet. checkpoint: epoch and
        bytes, or None. notes: see `workers.failures.note`. With the last one result and weights (or None), and done.
        """
        if self._finished is not None:
            return self._at_the_end(self._finished)
        report = self._measured(self._session.run_epoch())
        self._epochs.append(report)
        self._look_at_waiting(report)
        self._look_at_execution()
        told: dict[str, Any] = {"epoch": report, "checkpoint": None, "done": False}
        if report["epoch"] < self._parsed.epochs:
            told["checkpoint"] = self._kept()
        else:
            told |= self._end(report)
        return checked(told | self._told_once())

    def close(self) -> None:
        """Ends what works for the session, such as processes that decode images."""
        if self._finished is None:
            _close(self._session)

    def _end(self, last: dict[str, Any]) -> dict[str, Any]:
        result = self._result(last)
        weights = None
        try:
            finished = self._checkpoints.finish(_weights(self._session), self._epochs, result)
            weights = finished.weights and finished.weights.to_json()
        except StorageError as error:
            self._notes.append(note("checkpoint.failed", f"The weights could not be kept: {error}"))
        return {"result": result, "weights": weights, "done": True}

    def _at_the_end(self, finished: Finished) -> dict[str, Any]:
        *self._restored, last = finished.epochs
        weights = finished.weights and finished.weights.to_json()
        told = {"epoch": last, "checkpoint": None, "result": finished.result, "weights": weights, "done": True}
        return checked(told | self._told_once())

    def _told_once(self) -> dict[str, Any]:
        """Notes, and epochs from before: with the first report after them."""
        told: dict[str, Any] = {"notes": self._notes}
        if self._restored:
            told["restored"] = self._restored
        self._notes, self._restored = [], []
        return told

    def _result(self, last: dict[str, Any]) -> dict[str, Any]:
        from workers.environment import environment

        metrics = _metrics(self._session, last)
        if self._parsed.evaluate_test:
            metrics |= asdict(self._session.evaluate_test())
        if self._parsed.latency:
            metrics |= _latency(self._session)
        result = {
            "metrics": metrics,
            "epochs": last["epoch"],
            "seconds": math.fsum(epoch["seconds"] or 0.0 for epoch in self._epochs),
            # the request goes along, so that the trial can be run again from its row (workers.rerun)
            "environment": {
                **environment(self._parsed.device),
                **_execution(self._session),
                **({"workers": self._workers} if self._workers > 1 else {}),
                "request": self._request,
            },
        }
        told = result_of(result)
        for name, value in told["metrics"].items():
            if not math.isfinite(value):
                raise DivergedError(last["epoch"], name)
        return told

    def _measured(self, epoch: EpochResult) -> dict[str, Any]:
        """The epoch as JSON, with what the session knows of it besides, so that early stopping may judge by any metric;
        DivergedError where it has let NaN or an infinity pass."""
        numbers = asdict(epoch)
        more = getattr(self._session, "metrics", None)
        further = {name: value for name, value in (more() if more else {}).items() if name != "loss"}  # val_loss here
        report = epoch_of(further | numbers)
        for name in MEASURED:
            if not math.isfinite(number(report[name], name)):
                raise DivergedError(report["epoch"], name)
        return {name: value if value is not None and math.isfinite(value) else None for name, value in report.items()}

    def _look_at_waiting(self, report: dict[str, Any]) -> None:
        """Says once that images come too slowly. In the first epoch the processes that decode them start."""
        if report["epoch"] > 1 and report["wait_share"] > MOST_WAITING:
            self._say(
                "data.slow",
                f"Epoch {report['epoch']} waited {report['wait_share']:.0%} of its time for images: more CPUs, a "
                "faster disk, smaller images (image_size) or more ATTUNE_DATA_MEMORY would help.",
            )

    def _look_at_execution(self) -> None:
        """Says once that steps could not be computed as was chosen."""
        failure = _execution(self._session).get("execution", {}).get("failure")
        if failure is not None:
            self._say("compile.failed", f"Training goes on without compiled steps. {failure}")

    def _kept(self) -> dict[str, int] | None:
        try:
            return self._checkpoints.write(self._session, self._epochs)
        except (StorageError, TypeError) as error:
            self._say("checkpoint.failed", f"Training goes on without a checkpoint: {error}")
            return None

    def _finished_before(self) -> Finished | None:
        try:
            return self._checkpoints.finished()
        except (StateError, StorageError) as error:
            self._say("checkpoint.corrupt", f"The weights' file is passed over: {error}")
            return None

    def _resumed(self) -> Session:
        """The session, as far as the newest good checkpoint brings it."""
        problems: list[str] = []
        session = self._start(self._parsed)
        found: Checkpoint | None = None
        for checkpoint in self._checkpoints.newest(problems):
            try:
                session.load(checkpoint.state)
                found = checkpoint
                break
            except StateError as error:
                problems.append(f"epoch {len(checkpoint.epochs)}: {error}")
                self._checkpoints.discard(checkpoint.path)
                _close(session)
                session = self._start(self._parsed)  # half of it may have been loaded
        self._epochs = list(found.epochs) if found is not None else []
        self._restored = list(self._epochs)
        at = f"epoch {session.epoch}" if session.epoch else "the start"
        if problems:
            self._say("checkpoint.corrupt", f"The trial goes on from {at}. {' '.join(problems)}", epoch=session.epoch)
        if found is not None:
            self._say("trial.resumed", f"The trial goes on from {at}.", epoch=session.epoch)
        return session

    def _say(self, kind: str, message: str, **more: Any) -> None:
        """What lasts is said once: a full disk stays full for every epoch that follows."""
        if kind not in self._said or kind not in LASTING:
            self._said.add(kind)
            self._notes.append(note(kind, message, **more))


def _close(session: Session) -> None:
    end = getattr(session, "close", None)
    if end is not None:
        end()


def keep_to_share(gpus: float) -> None:
    """Bounds the memory that this process may take of its GPU by the share of it that a trial has, so that one that
    takes more fails alone. Nothing for trials without a GPU; one that lacks the GPU it was given says so when it needs
    it, which a plug-in's may not."""
    import torch

    if gpus and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))


def store_of(order: dict[str, Any], where: str) -> Store:
    """The store that the order names, looked at once by each process; StorageError when it is another one."""
    return _store(StoreIdentity(order["store"]["url"], order["store"]["id"]), where)


@lru_cache(maxsize=4)
def _store(identity: StoreIdentity, where: str) -> Store:
    return checked_store(identity, where)


def _metrics(session: Session, last: dict[str, Any]) -> dict[str, float]:
    """What the last epoch measured; sessions may know more of it than every session's report holds."""
    more = getattr(session, "metrics", None)
    return {"top1": last["top1"], "top5": last["top5"], "loss": last["val_loss"], **(more() if more else {})}


def _latency(session: Session) -> dict[str, float]:
    """TrainingError where the session does not measure it."""
    timed = getattr(session, "latency", None)
    if timed is None:
        raise TrainingError(f"{type(session).__name__} measures no latency, which is an objective of this search.")
    found: dict[str, float] = timed()
    return found


def _execution(session: Session) -> dict[str, Any]:
    """How the session's steps were computed, as "execution"; nothing where it does not say."""
    told = getattr(session, "execution", None)
    return {} if told is None else {"execution": told()}


def _weights(session: Session) -> dict[str, Any] | None:
    """Tensors by name; None for a session that has none. What a session judges may be others than it trains."""
    judged = getattr(session, "weights", None)
    weights = session.state().get("network") if judged is None else judged()
    return weights if isinstance(weights, dict) and weights else None
