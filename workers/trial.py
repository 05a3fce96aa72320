"""The trial process: a Tune Trainable whose actor lives on from trial to trial.

One `step` is one epoch. It does not raise where the process can go on: an actor that raised is thrown away by Tune, and
a fresh process has to import torch again, so failures are reported as results. It raises UnusableProcess, with the
failure in it, where the next trial needs a fresh process. torch is imported in the first step, not before, so that a
process that Tune starts and then does not need costs little. The process has no database credentials.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from typing import TYPE_CHECKING, Any

import ray
from ray.tune import Trainable

from workers.trial_environment import strip_environment
from workers.watchdog import Watchdog

if TYPE_CHECKING:
    from workers.watched_trial import WatchedTrial

LEAVE_SECONDS = 5.0
"""How long a process that is of no use any more may take to end by itself."""


class TrialActor(Trainable):
    """config["order"]: what `workers.trial_run.TrialRun` takes, and "epoch_timeout" in seconds.

    A result holds `order_id` (Tune writes a `trial_id` of its own into results) and what a step of a TrialRun tells, or
    `failure` (kind, message, traceback).
    """

    def setup(self, config: dict[str, Any]) -> None:
        strip_environment(os.environ)
        self._order = config["order"]
        self._trial: WatchedTrial | None = None
        self._watchdog = Watchdog()
        self._forget_folder()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end_watched()
        self._forget_folder()
        self._order = new_config["order"]
        return True

    def step(self) -> dict[str, Any]:
        order_id = self._order["trial_id"]
        try:
            with self._watchdog.watching(self._order["epoch_timeout"]):
                told = self._epoch()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its class and traceback
            self._end_trial()
            told = {"failure": self._failure(order_id, error), "done": True}
        if told["done"]:
            self._end_trial()
        return {"order_id": order_id, **told}

    def _epoch(self) -> dict[str, Any]:
        """One epoch, and the start of the trial where it is the first."""
        if self._trial is None:
            from workers.team import starting
            from workers.watched_trial import WatchedTrial

            self._trial = WatchedTrial(self._order, _here(), self._watchdog, starting(self._order, _here()))
        return self._trial.step()

    def _failure(self, order_id: str, error: Exception) -> dict[str, str]:
        from workers.failures import UnusableProcess, ends_process, failure_of

        failure = failure_of(error)
        if ends_process(error):
            leave = threading.Timer(LEAVE_SECONDS, os._exit, (1,))
            leave.daemon = True
            leave.start()
            raise UnusableProcess(order_id, failure) from None
        return failure

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _end_watched(self) -> None:
        """Ends a trial that has not said that it is done: what works for it may hang, and nobody waits for it."""
        with self._watchdog.watching(self._order["epoch_timeout"]):
            self._end_trial()

    def _forget_folder(self) -> None:
        """Tune has made one for this trial, and attune writes nothing there: on other nodes nobody else removes it."""
        shutil.rmtree(self.logdir, ignore_errors=True)

    def cleanup(self) -> None:
        self._end_watched()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune asks for one when a trial is paused, which attune never does: its own checkpoints go into the store."""


def _here() -> str:
    """This machine, as messages name it."""
    return f"Node {ray.get_runtime_context().get_node_id()[:8]} ({socket.gethostname()})"
