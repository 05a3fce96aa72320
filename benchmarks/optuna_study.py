"""Serves trials with Optuna Dashboard. Runs in an environment of its own, which holds nothing of attune.

    python optuna_study.py TRIALS.jsonl PORT

TRIALS.jsonl: {"values": [top1, macs], "params": {stage: choice}} a line. They are kept in memory, Optuna's fastest
storage. Prints "ready" once it is about to serve; optuna and optuna-dashboard must be installed.
"""

import json
import sys
from pathlib import Path

import optuna
import optuna_dashboard
from optuna.distributions import CategoricalDistribution


def main() -> None:
    path, port = sys.argv[1:]
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    choices = {name: sorted({row["params"][name] for row in rows}) for name in rows[0]["params"]}
    distributions = {name: CategoricalDistribution(found) for name, found in choices.items()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="compared", directions=["maximize", "minimize"])
    for row in rows:
        trial = optuna.trial.create_trial(params=row["params"], distributions=distributions, values=row["values"])
        study.add_trial(trial)
    print("ready", optuna.__version__, optuna_dashboard.__version__, flush=True)
    optuna_dashboard.run_server(storage, host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main()
