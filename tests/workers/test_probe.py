"""`gpus: auto` from the probe to the search that goes on with its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray.exceptions import NodeDiedError, RaySystemError, WorkerCrashedError

from db import events
from db.engine import reading
from db.errors import Fenced
from search.recipes import resolve
from tests.workers.conftest import Lab
from workers.datasets.loading import entry
from workers.density import Choice, Measured
from workers.probe import Probed, probe, told_by
from workers.training.request import TrialRequest

ROOT = Path(__file__).parents[2]
AUTO = {"resources": {"gpus": "auto"}}


def request() -> TrialRequest:
    resolved = entry("digits").resolve()
    recipe = resolve("quick", {}).model_dump(mode="json")
    architecture = {"backbone": {"name": "resnet8", "width": 4}, "placements": {}}
    return TrialRequest(architecture, resolved.task, "digits", recipe, epochs=2, seed=0)


def told(lab: Lab, search_id: str) -> list[dict[str, object]]:
    with reading(lab.engine) as session:
        return [event.data for event in events.after(session, search_id, 0) if event.kind == "search.gpu_probed"]


def test_real_processes_are_measured_until_the_cpus_run_out() -> None:
    probed = probe(request(), cpus=2, seconds=0.3)
    assert [found.trials for found in probed.measured][:2] == [1, 2]
    assert probed.choice.trials in (1, 2)
    assert all(found.images_per_second > 0 for found in probed.measured)
    message = probed.to_json()["message"]
    assert "CPUs of its node" in message or "images per second" in message


def test_what_cannot_be_measured_leaves_one_trial_to_a_gpu_and_says_why() -> None:
    probed = probe(replace(request(), fingerprint="0" * 64), cpus=8, seconds=0.1)
    assert probed.choice.trials == 1
    assert "the data has changed" in probed.choice.reason


def test_a_search_goes_on_with_what_was_found_and_is_not_probed_again(lab: Lab) -> None:
    lab.submit(**AUTO)
    run = lab.start(lab.claim())
    probed = Probed(Choice(4, "8 at once give 1.02 ×."), (Measured(1, 100.0, 1), Measured(4, 300.0, 1)))
    run.ledger.settled({"gpus": 0.25, "trials_per_gpu": 4}, probed.to_json())
    after = lab.start_again(run)
    assert after.plan.spec.resources.gpus == 0.25
    assert after.plan.spec.resources.trials_per_gpu == 4
    [event] = told(lab, run.ledger.search_id)
    assert event["message"] == "4 trials share a GPU. 8 at once give 1.02 ×."
    assert event["trials_per_gpu"] == 4


def test_what_is_lost_with_its_worker_is_asked_for_again_twice() -> None:
    probed = Probed(Choice(2, "why"), ())
    for losses in (1, 2):
        answers: list[Exception | Probed] = [*[WorkerCrashedError(), NodeDiedError("gone")][:losses], probed]
        assert told_by(lambda answers=answers: _given(answers)) is probed  # type: ignore[misc]
        assert answers == []
    with pytest.raises(WorkerCrashedError):
        told_by(lambda: _given([WorkerCrashedError() for _ in range(3)]))
    broken: list[Exception | Probed] = [RaySystemError("no such function"), probed]
    with pytest.raises(RaySystemError):
        told_by(lambda: _given(broken))
    assert broken == [probed], "what would fail again is asked for once"


def _given(answers: list[Exception | Probed]) -> Probed:
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_a_driver_that_has_lost_the_search_keeps_nothing(lab: Lab) -> None:
    lab.submit(**AUTO)
    run = lab.start(lab.claim())
    run.ledger.release("queued")
    lab.claim()
    with pytest.raises(Fenced):
        run.ledger.settled({"gpus": 0.25, "trials_per_gpu": 4}, {"message": "late"})
    assert lab.search(run.ledger.search_id).spec["resources"]["trials_per_gpu"] == "auto"


ON_A_CLUSTER = """
import json, os, sys, tempfile
from pathlib import Path
from types import SimpleNamespace
os.umask(0o077)
import ray
from search.plan import make_plan
from search.spec import SearchSpec
from workers.datasets.loading import entry
from workers.probe import settle_share

plan = make_plan(
    SearchSpec.parse({"name": "t", "dataset": {"name": "digits"}, "resources": {"gpus": "auto"}}),
    {"digits": entry("digits")},
)
found = []
armed = Path(sys.argv[1], "armed")
ledger = SimpleNamespace(settled=lambda resources, event: found.append([resources, event]))
run = SimpleNamespace(plan=plan, over=False, tick=lambda: [], ledger=ledger)
stopped = SimpleNamespace(plan=plan, over=True, tick=lambda: [], ledger=ledger)
with tempfile.TemporaryDirectory() as folder:
    ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False,
             _temp_dir=folder + "/ray", _node_ip_address="127.0.0.1")
    settle_share(stopped)
    armed.touch()
    settle_share(run)
    armed.with_name("always").touch()
    settle_share(run)
    print(json.dumps(found))
    ray.shutdown()
"""


ENDS_ITS_WORKER = """
import os, signal
from pathlib import Path

armed = Path(__file__).with_name("armed")
in_a_worker = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().startswith(b"ray::")
if in_a_worker and (armed.exists() or armed.with_name("always").exists()):
    armed.unlink(missing_ok=True)
    os.kill(os.getppid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a worker without a GPU says")
def test_the_probe_runs_on_a_worker_with_a_gpu_of_its_own(tmp_path: Path) -> None:
    """The GPU is in Ray's books only, so that the probe says that there is none; a search that has been stopped gets no
    answer. A worker that dies once changes nothing, and one that always dies says nothing for good."""
    (tmp_path / "ends_its_worker.py").write_text(ENDS_ITS_WORKER)
    environment = os.environ | {"ATTUNE_PLUGINS": "ends_its_worker", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_CLUSTER, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [[resources, event], [nothing, failed]] = json.loads(done.stdout.strip().splitlines()[-1])
    assert not (tmp_path / "armed").exists(), "its worker has died once"
    assert resources == {"gpus": 1.0, "trials_per_gpu": 1}
    assert "could not be measured" in event["message"]
    assert nothing == {}
    assert "for now" in failed["message"]
