"""The trial process: a Tune Trainable whose actor lives on from trial to trial.

One `step` is one epoch. It never raises: an actor that raised is thrown away by Tune, and a fresh process has to
import torch again, so failures are reported as results. torch is imported in the first step, not before, so that a
process that Tune starts and then does not need costs little. The process has no database credentials.
"""

from __future__ import annotations

import faulthandler
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from workers.training.evaluators import Session
    from workers.training.request import EpochResult

STDERR = 2


class TrialActor(Trainable):
    """config["order"] holds the trial's id, its share of a GPU and, under "request", a TrialRequest as JSON.

    A result holds `order_id` (Tune writes a `trial_id` of its own into results) and `epoch` (metrics of the epoch just
    trained), `result` (with the last one) or `failure` (kind, message, traceback).
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._order = config["order"]
        self._request = dict(self._order["request"])
        self._session: Session | None = None
        self._seconds = 0.0
        self._settings = WorkerSettings()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        # a hung epoch ends its process; the driver sees it die and starts the trial again
        faulthandler.dump_traceback_later(self._settings.epoch_timeout, exit=True, file=STDERR)
        try:
            return {"order_id": self._order["trial_id"], **self._epoch()}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its class and traceback
            return {"order_id": self._order["trial_id"], "failure": _failure(error), "done": True}
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _epoch(self) -> dict[str, Any]:
        from workers.training.evaluators import load_plugins, start_session
        from workers.training.request import TrialRequest

        if self._session is None:
            load_plugins()
            self._request["device"] = "cuda" if self._order["gpus"] else "cpu"
            self._session = start_session(TrialRequest.from_json(self._request))
        epoch = self._session.run_epoch()
        self._seconds += epoch.seconds
        if epoch.epoch < self._request["epochs"]:
            return {"epoch": asdict(epoch), "done": False}
        return {"epoch": asdict(epoch), "result": self._result(self._session, epoch), "done": True}

    def _result(self, session: Session, last: EpochResult) -> dict[str, Any]:
        from workers.environment import environment

        metrics = {"top1": last.top1, "top5": last.top5, "loss": last.val_loss}
        if self._request["evaluate_test"]:
            metrics |= asdict(session.evaluate_test())
        return {
            "metrics": metrics,
            "epochs": last.epoch,
            "seconds": self._seconds,
            # the request goes along, so that the trial can be run again from its row (workers.rerun)
            "environment": {**environment(self._request["device"]), "request": self._request},
        }

    def cleanup(self) -> None:
        self._session = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune asks for one when a trial is paused, which attune never does."""


def _failure(error: Exception) -> dict[str, str]:
    from workers.failures import kind_of

    text = str(error) or type(error).__name__
    message = text if len(text) <= 500 else f"{text[:497]}..."
    return {"kind": kind_of(error), "message": message, "traceback": traceback.format_exc(limit=-20)[-8000:]}
