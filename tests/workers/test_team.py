"""A trial of two workers in Ray actors, as Tune places them: trained, shared on, killed, resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.errors import SpecError
from search.plan import make_plan
from search.spec import SearchSpec
from tests.workers.conftest import ENTRY
from tests.workers.test_trial_run import order_of, request_for, train
from workers.failures import ends_process, kind_of
from workers.nodes import placed_by
from workers.storage.identity import write_marker
from workers.storage.store import open_store
from workers.training.errors import MemberError

ROOT = Path(__file__).parents[2]
RECIPE: dict[str, Any] = {"lr": 0.01}


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["epoch"] == theirs["epoch"]
    for name in ("train_loss", "val_loss"):
        assert ours[name] == pytest.approx(theirs[name], rel=5e-4)


@pytest.mark.slow
def test_a_trial_of_two_workers_is_one_trial(tmp_path: Path) -> None:
    store, plain = open_store(str(tmp_path / "store")), open_store(str(tmp_path / "plain"))
    for each in (store, plain):
        write_marker(each, "the-store")
    request = request_for(RECIPE, epochs=3)
    expected = [step["epoch"] for step in train(plain, request)]
    order = {**order_of(store, request), "workers": 2, "epoch_timeout": 120.0}
    (tmp_path / "order.json").write_text(json.dumps(order))
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.teamed", str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    for ours, theirs in zip(told["whole"], expected, strict=True):
        same(ours["epoch"], theirs)
    environment = told["whole"][-1]["result"]["environment"]
    assert environment["workers"] == 2
    assert "Several processes" in environment["execution"]["reason"]
    assert told["same_processes"], "the workers are there for the next trial"
    assert told["killed"]["kind"] == "killed"
    assert "Worker 2 of 2" in told["killed"]["message"]
    assert [note["kind"] for note in told["rest"][0]["notes"]] == ["trial.resumed"]
    for ours, theirs in zip([told["first"], *told["rest"]], expected, strict=True):
        same(ours["epoch"], theirs)


def test_a_dead_worker_is_a_death_of_the_trial() -> None:
    assert kind_of(MemberError("gone")) == "killed"  # which is tried again
    assert ends_process(MemberError("gone"))


def test_workers_share_what_a_trial_takes_on_one_node() -> None:
    placed = placed_by(4.0, 2.0, workers=2)({"avoid": ["a"]})
    assert placed.bundles == [{"CPU": 2.0, "GPU": 1.0}] * 2
    assert placed.strategy == "STRICT_PACK"
    assert placed.required_resources == {"CPU": 4.0, "GPU": 2.0}
    assert placed_by(1.0, 0.25)({}).bundles == [{"CPU": 1.0, "GPU": 0.25}]


@pytest.mark.parametrize(
    ("resources", "processes"),
    [
        ({}, 1),
        ({"gpus": 0.5}, 1),
        ({"gpus": 1}, 1),
        ({"gpus": 4}, 4),
        ({"workers": 2}, 2),
        ({"gpus": 2, "workers": 2}, 2),
    ],
)
def test_there_is_a_worker_for_each_gpu(resources: dict[str, Any], processes: int) -> None:
    spec = SearchSpec.parse({"name": "t", "dataset": {"name": "tiny"}, "resources": resources})
    assert spec.resources.processes == processes


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"resources": {"gpus": 2, "workers": 1}}, "resources.workers"),
        ({"resources": {"gpus": 0.5, "workers": 2}}, "resources.workers"),
        ({"resources": {"gpus": "auto", "workers": 2}}, "resources.workers"),
        ({"resources": {"workers": 4}, "training": {"batch_size": 3}}, "training.batch_size"),
    ],
)
def test_what_cannot_be_shared_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        make_plan(SearchSpec.parse({"name": "t", "dataset": {"name": "tiny"}, **change}), {"tiny": ENTRY})
    assert [problem.field for problem in refused.value.problems] == [field]
