"""The trial process: a Tune Trainable whose actor lives on from trial to trial.

One `step` is one epoch. It never raises: an actor that raised is thrown away by Tune, and a fresh process has to
import torch again, so failures are reported as results. torch is imported in the first step, not before, so that a
process that Tune starts and then does not need costs little. The process has no database credentials.
"""

from __future__ import annotations

import faulthandler
import traceback
from typing import Any

from ray.tune import Trainable

from workers.settings import WorkerSettings


class TrialActor(Trainable):
    """config["order"] holds the trial's id and, under "request", a TrialRequest as JSON.

    A result holds the order's `trial_id`, and `epoch` (metrics of the epoch just trained), `result` (with the last
    one) or `failure` (kind, message, traceback).
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._order = config["order"]
        self._session: Any = None
        self._settings = WorkerSettings()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        # a hung epoch ends its process; the driver sees it die and starts the trial again
        faulthandler.dump_traceback_later(self._settings.epoch_timeout, exit=True, file=2)
        try:
            return {"trial_id": self._order["trial_id"], **self._epoch()}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its class and traceback
            return {"trial_id": self._order["trial_id"], "failure": _failure(error), "done": True}
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _epoch(self) -> dict[str, Any]:
        if self._session is None:
            self._settings.load_plugins()
            from workers.training.session import open_session

            self._session = open_session(self._order["request"])
        epoch = self._session.run_epoch()
        if not self._session.done:
            return {"epoch": epoch, "done": False}
        return {"epoch": epoch, "result": self._session.result(), "done": True}

    def cleanup(self) -> None:
        self._session = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune asks for one when a trial is paused, which attune never does."""


def _failure(error: Exception) -> dict[str, str]:
    from workers.training.session import failure_kind

    return {
        "kind": failure_kind(error),
        "message": _message(error),
        "traceback": traceback.format_exc(limit=-20)[-8000:],
    }


def _message(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 500 else f"{text[:497]}..."
