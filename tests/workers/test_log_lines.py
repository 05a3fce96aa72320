"""Every line of a driver's log says of which search and attempt it is, and of which trial where it is about one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from db import claims
from db.engine import writing

ONE_SEARCH = """
import json, sys
import structlog
from db.engine import make_engine
from tests.workers.conftest import Lab, accuracy
from workers.heartbeat import Heartbeat
from workers.logs import configure_logs
from workers.orders import Failure
from workers.termination import Termination

configure_logs()
lab = Lab(make_engine(sys.argv[1]))
search = lab.search(sys.argv[2])
structlog.contextvars.bind_contextvars(search=search.id, attempt=search.attempt)
run = lab.start(search)
heartbeat = Heartbeat(run.ledger, 60.0, run._budget._active, Termination())
heartbeat.start()
heartbeat.attach(run)


def answer(order):
    run.noted(order.trial_id, [{"kind": "checkpoint.failed", "message": "disk full"}])
    return Failure("error", "a bug") if order.number == 2 else accuracy(order)


lab.work(run, answer)
heartbeat.stop()
lab.finish(run)
"""


def lines(database_url: str, search_id: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", ONE_SEARCH, database_url, search_id], capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.slow
def test_lines_name_search_attempt_and_trial(lab, database_url: str) -> None:
    search_id = lab.submit(space={"modules": ["none", "se"], "reduction": [4]}, budget={"trials": 3}, controls=False)
    lab.claim()
    with writing(lab.engine) as session:
        claims.release(session, search_id, 1, "queued", died=True)
    lab.claim()
    told = lines(database_url, search_id)
    assert {(line["search"], line["attempt"]) for line in told} == {(search_id, 2)}
    trials = {trial.id for trial in lab.trials(search_id)}
    about = [line for line in told if line["event"].startswith(("trial.", "checkpoint."))]
    assert {line["trial"] for line in about} == trials
    assert {line["event"] for line in about} >= {"trial.started", "trial.finished", "trial.failed", "checkpoint.failed"}
    assert all({"level", "timestamp"} <= line.keys() for line in told)
