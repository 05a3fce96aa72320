"""Trains one trial again from what its row holds, without Ray: `python -m workers.rerun TRIAL`.

Prints a JSON object: what was measured then and what is measured now, and where the two environments differ. The same
machine, versions and device give the same numbers.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from db import trials
from db.engine import make_engine, reading
from db.errors import NotFound
from db.models import Trial
from db.settings import DatabaseSettings
from workers.environment import environment
from workers.training.evaluators import load_plugins, start_session
from workers.training.request import TrialRequest

COMPARED = ("top1", "top5", "loss")


def rerun(trial: Trial) -> dict[str, Any]:
    """Then, now and the difference of environments; ValueError for a trial that has not been trained to its end."""
    stored = trial.environment or {}
    if "request" not in stored:
        raise ValueError(f"trial {trial.id} is {trial.status}: only a trained one can be run again")
    request = TrialRequest.from_json(stored["request"])
    session = start_session(request)
    for _ in range(request.epochs):
        epoch = session.run_epoch()
    if hasattr(session, "close"):
        session.close()
    here = environment(request.device)
    return {
        "trial": trial.id,
        "label": trial.label,
        "then": {name: getattr(trial, name) for name in COMPARED},
        "now": {"top1": epoch.top1, "top5": epoch.top5, "loss": epoch.val_loss},
        "environment_differs": {
            name: {"then": stored.get(name), "now": value} for name, value in here.items() if stored.get(name) != value
        },
    }


def main(trial_id: str) -> int:
    load_plugins()
    try:
        with reading(make_engine(DatabaseSettings().url)) as session:
            trial = trials.get(session, trial_id)
        result = rerun(trial)
    except (NotFound, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's answer
        return 2
    print(json.dumps(result, indent=2))  # noqa: T201 - a command's answer
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m workers.rerun TRIAL")
    raise SystemExit(main(sys.argv[1]))
