"""A trial over its whole life in the store, trained for real: interrupted, damaged, refused, finished."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from search.architecture import Architecture
from search.models import build
from search.recipes import resolve
from workers.datasets.loading import entry
from workers.reports import ReportError
from workers.storage.errors import StorageError
from workers.storage.identity import write_marker
from workers.storage.layout import trial_prefix
from workers.storage.quota import tell
from workers.storage.store import Store, open_store
from workers.training.evaluators import start_session
from workers.training.request import EpochResult, TestResult, TrialRequest
from workers.trial_run import TrialRun

PREFIX = trial_prefix("0192-search", "0192-trial")
EPOCHS = 4
TIMES = ("seconds", "images_per_second")
CBAM = {"backbone": {"name": "resnet8", "width": 4}, "placements": {"2.1.residual": [{"kind": "cbam", "reduction": 4}]}}
SGD: dict[str, Any] = {}
ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 0.01, "augment": "shift", "shift_pixels": 1}


def request_for(recipe: dict[str, Any], dataset: str = "digits", **changed: Any) -> TrialRequest:
    resolved = entry(dataset).resolve()
    fields: dict[str, Any] = {
        "architecture": CBAM,
        "task": resolved.task,
        "dataset": dataset,
        "dataset_options": dict(resolved.options),
        "fingerprint": resolved.fingerprint,
        "recipe": resolve("quick", {"epochs": EPOCHS, **recipe}).model_dump(mode="json"),
        "epochs": EPOCHS,
        "seed": 3,
    }
    return TrialRequest(**{**fields, **changed})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    write_marker(store, "the-store")
    return store


def order_of(store: Store, request: TrialRequest) -> dict[str, Any]:
    return {
        "trial_id": "0192-trial",
        "gpus": 0,
        "request": json.loads(json.dumps(request.to_json())),  # as it travels
        "store": {"url": store.url, "id": "the-store", "prefix": PREFIX},
    }


def train(store: Store, request: TrialRequest, steps: int = 99) -> list[dict[str, Any]]:
    """What a fresh process would tell in its next steps."""
    trial = TrialRun(order_of(store, request), "here")
    told = []
    for _ in range(steps):
        told.append(trial.step())
        if told[-1]["done"]:
            break
    return told


def numbers(epoch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in epoch.items() if name not in TIMES}


def names(store: Store) -> list[str]:
    return [file.path.removeprefix(f"{PREFIX}/") for file in store.list(PREFIX)]


def epochs_kept(store: Store) -> list[int]:
    return [int(name.split("-")[1]) for name in names(store) if name.startswith("epoch-")]


def kinds(told: dict[str, Any]) -> list[str]:
    return [note["kind"] for note in told["notes"]]


@pytest.mark.parametrize(
    ("recipe", "dataset"),
    [(SGD, "digits"), (ADAMW, "digits"), ({**SGD, "ema": 0.9}, "digits"), (SGD, "cluttered-digits")],
)
def test_a_trial_interrupted_after_every_epoch_ends_bit_by_bit_as_one_that_was_not(
    tmp_path: Path, recipe: dict[str, Any], dataset: str
) -> None:
    request = request_for(recipe, dataset, epochs=3)
    through, broken = open_store(str(tmp_path / "through")), open_store(str(tmp_path / "broken"))
    for store in (through, broken):
        write_marker(store, "the-store")
    expected = train(through, request)
    first, second, last = (train(broken, request, steps=1)[0] for _ in range(3))

    assert [numbers(told["epoch"]) for told in (first, second, last)] == [numbers(told["epoch"]) for told in expected]
    assert first["checkpoint"]["epoch"] == 1
    assert kinds(second) == kinds(last) == ["trial.resumed"]
    assert last["notes"][0]["epoch"] == 2
    assert last["restored"] == [first["epoch"], second["epoch"]]
    assert last["result"]["metrics"] == expected[-1]["result"]["metrics"]
    assert last["result"]["epochs"] == 3
    # the whole training's time, not only the last process's
    assert last["result"]["seconds"] == math.fsum(told["epoch"]["seconds"] for told in (first, second, last))
    one, other = (safetensors.torch.load_file(str(tmp_path / name / PREFIX / "weights.safetensors"))
                  for name in ("through", "broken"))  # fmt: skip
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_last_two_checkpoints_are_kept_and_a_finished_trial_keeps_only_its_weights(store: Store) -> None:
    request = request_for(SGD)
    trial = TrialRun(order_of(store, request), "here")
    assert [epochs_kept(store) for _ in range(3) if trial.step()] == [[1], [1, 2], [2, 3]]
    last = trial.step()
    assert last["done"]
    assert names(store) == ["weights.safetensors"]
    content = store.read(last["weights"]["path"])
    assert last["weights"] == {
        "path": f"{PREFIX}/weights.safetensors",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_the_weights_are_those_of_the_network_that_was_measured(store: Store, tmp_path: Path) -> None:
    request = request_for(ADAMW, epochs=2)
    last = train(store, request)[-1]
    network = build(Architecture.from_json(request.architecture), request.task)
    network.load_state_dict(safetensors.torch.load_file(str(tmp_path / "store" / PREFIX / "weights.safetensors")))
    session = start_session(request)
    session.network.load_state_dict(network.state_dict())  # type: ignore[attr-defined]
    judged = session._judge(session._validation, 1)  # type: ignore[attr-defined]
    assert (judged.top1, judged.loss) == (last["result"]["metrics"]["top1"], last["result"]["metrics"]["loss"])


def test_a_finished_trial_that_is_started_again_says_what_it_said(store: Store) -> None:
    request = request_for(SGD, epochs=2)
    first = train(store, request)
    again = train(store, request)
    assert len(again) == 1
    assert again[0]["result"] == first[-1]["result"]
    assert again[0]["weights"] == first[-1]["weights"]
    assert [*again[0]["restored"], again[0]["epoch"]] == [told["epoch"] for told in first]


def damage(store: Store, name: str, how: str) -> None:
    path = f"{PREFIX}/{name}"
    content = store.read(path)
    where = store.local_path(path)
    assert where is not None
    match how:
        case "truncated":
            where.write_bytes(content[: len(content) // 2])
        case "empty":
            where.write_bytes(b"")
        case "bit":
            where.write_bytes(content[:-5] + bytes([content[-5] ^ 4]) + content[-4:])
        case "no safetensors":
            digest = hashlib.sha256(b"nonsense").hexdigest()
            where.unlink()
            where.with_name(f"{name.rpartition('-')[0]}-{digest}.safetensors").write_bytes(b"nonsense")


@pytest.mark.parametrize("how", ["truncated", "empty", "bit", "no safetensors"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(store: Store, how: str) -> None:
    request = request_for(SGD)
    expected = train(store, request, steps=3)
    newest = names(store)[-1]
    damage(store, newest, how)
    after = train(store, request, steps=1)[0]
    assert numbers(after["epoch"]) == numbers(expected[2]["epoch"])
    assert kinds(after) == ["checkpoint.corrupt", "trial.resumed"]
    assert "epoch 2" in after["notes"][0]["message"]
    assert "epoch-000003" not in after["notes"][1]["message"]
    # the good one before it is not what goes first
    assert epochs_kept(store) == [2, 3]
    assert kinds(train(store, request, steps=1)[0]) == ["trial.resumed"]


def test_when_no_checkpoint_is_good_the_trial_starts_over(store: Store) -> None:
    request = request_for(SGD)
    expected = train(store, request, steps=3)
    for name in names(store):
        damage(store, name, "bit")
    after = train(store, request)
    assert [numbers(told["epoch"]) for told in after[:3]] == [numbers(told["epoch"]) for told in expected]
    assert kinds(after[0]) == ["checkpoint.corrupt"]
    assert "from the start" in after[0]["notes"][0]["message"]
    assert after[-1]["result"]["epochs"] == EPOCHS


def test_a_checkpoint_of_another_request_is_not_gone_on_from(store: Store) -> None:
    train(store, request_for(SGD, seed=1), steps=2)
    after = train(store, request_for(SGD, seed=2), steps=1)[0]
    assert after["epoch"]["epoch"] == 1
    assert kinds(after) == ["checkpoint.corrupt"]
    assert "another trial" in after["notes"][0]["message"]


def test_weights_of_another_request_or_damaged_ones_are_no_result(store: Store) -> None:
    request = request_for(SGD, epochs=1)
    first = train(store, request)[-1]
    damage(store, "weights.safetensors", "bit")
    again = train(store, request)[-1]
    assert kinds(again) == ["checkpoint.corrupt"]
    assert again["result"]["metrics"] == first["result"]["metrics"]
    other = train(store, replace(request, seed=9))[-1]
    assert "another trial" in other["notes"][0]["message"]
    assert other["result"]["metrics"] != first["result"]["metrics"]


def test_a_store_over_its_quota_ends_no_training_and_takes_nothing_more(store: Store) -> None:
    tell(store, used=1001, limit=1000)
    before = store.list()
    told = train(store, request_for(SGD))
    assert [one["checkpoint"] for one in told] == [None] * EPOCHS
    assert [kinds(one) for one in told] == [["checkpoint.failed"], [], [], ["checkpoint.failed"]]
    assert "over its quota" in told[0]["notes"][0]["message"]
    assert "weights could not be kept" in told[-1]["notes"][0]["message"]
    assert told[-1]["weights"] is None
    assert told[-1]["result"]["epochs"] == EPOCHS
    assert store.list() == before


def test_a_trial_counts_what_it_writes_between_two_rounds_of_the_janitor(store: Store) -> None:
    request = request_for(SGD)
    size = train(store, request, steps=1)[0]["checkpoint"]["bytes"]
    store.remove_all(PREFIX)
    tell(store, used=5000, limit=5000 + int(2.5 * size))
    told = train(store, request)
    # two fit; a third takes the place of the first, so that nothing grows, and the weights that of all
    assert [one["checkpoint"] is not None for one in told] == [True, True, True, False]
    assert told[-1]["weights"] is not None
    for seed in range(4, 12):  # trials of the same process: each leaves its weights, until there is no room for them
        used = sum(file.bytes for file in store.list("searches"))
        other = {**order_of(store, request_for(SGD, seed=seed, epochs=1))}
        other["store"] = {**other["store"], "prefix": trial_prefix("0192-search", f"0192-trial-{seed}")}
        last = TrialRun(other, "here").step()
        if last["weights"] is None:
            break
    assert last["weights"] is None
    assert used <= 2.5 * size < used + told[-1]["weights"]["bytes"]
    tell(store, used=used, limit=10**9)
    assert TrialRun(other, "here").step()["weights"] is not None


FULL_DISK = """
import json, resource, sys
from workers.trial_run import TrialRun

trial = TrialRun(json.loads(sys.argv[1]), "here")
told = [trial.step()]
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
while not told[-1]["done"]:
    told.append(trial.step())
print(json.dumps(told))
"""


def test_a_full_disk_ends_no_training_and_leaves_no_part_of_a_file(store: Store) -> None:
    request = request_for(SGD)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, json.dumps(order_of(store, request))], capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert [one["checkpoint"] is not None for one in told] == [True, False, False, False]
    assert "File too large" in told[1]["notes"][0]["message"]
    assert kinds(told[1]) == ["checkpoint.failed"]
    assert told[-1]["result"]["epochs"] == EPOCHS
    assert told[-1]["weights"] is None
    assert epochs_kept(store) == [1]
    assert len(names(store)) == 1
    # with room again it goes on from there, to the same end
    after = train(store, request)
    assert after[0]["epoch"]["epoch"] == 2
    assert after[-1]["result"]["metrics"] == told[-1]["result"]["metrics"]


def test_another_store_is_refused_before_anything_is_trained(store: Store, tmp_path: Path) -> None:
    order = order_of(store, request_for(SGD))
    order["store"]["id"] = "another"
    with pytest.raises(StorageError, match=r"node 5 sees another store .*ATTUNE_STORAGE"):
        TrialRun(order, "node 5")


class Careless:
    """A plug-in's session: no network, and NaN where it should have raised."""

    def __init__(self, request: TrialRequest) -> None:
        self.epoch = 0
        self.best = math.inf

    def run_epoch(self) -> EpochResult:
        self.epoch += 1
        loss = math.nan if self.epoch == 3 else 1.0 / self.epoch
        return EpochResult(self.epoch, loss, loss, 0.5, 0.9, 0.1, 0.01, math.inf)

    def evaluate_test(self) -> TestResult:
        return TestResult(1.0, 0.5, 0.9)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "best": self.best}

    def load(self, state: dict[str, Any]) -> None:
        self.epoch, self.best = state["epoch"], state["best"]


def test_a_session_of_a_plug_in_that_lets_nan_pass_has_diverged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.trial_run.start_session", Careless)
    request = request_for(SGD)
    trial = TrialRun(order_of(store, request), "here")
    assert trial.step()["epoch"]["images_per_second"] is None
    trial.step()
    with pytest.raises(Exception, match="Diverged in epoch 3: the train_loss is not finite"):
        trial.step()
    assert epochs_kept(store) == [1, 2]


def test_a_session_without_a_network_leaves_no_weights(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.trial_run.start_session", Careless)
    request = request_for(SGD, epochs=2)
    first = train(store, request)
    assert first[-1]["weights"] is None
    assert train(store, request)[0]["result"] == first[-1]["result"]


class Chatty(Careless):
    """A plug-in's session with metrics of its own."""

    told: Any = None

    def run_epoch(self) -> EpochResult:
        self.epoch += 1
        return EpochResult(self.epoch, torch.tensor(0.5), 0.5, 0.5, 0.9, 0.1, 0.01, 1.0)  # type: ignore[arg-type]

    def metrics(self) -> dict[str, Any]:
        return {"mine": self.told}


def test_scalars_of_a_plug_in_become_numbers_and_words_fail_the_trial(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.trial_run.start_session", Chatty)
    monkeypatch.setattr(Chatty, "told", torch.tensor(3.0))
    last = train(store, request_for(SGD, epochs=1))[-1]
    assert (last["epoch"]["train_loss"], last["result"]["metrics"]["mine"]) == (0.5, 3.0)
    json.dumps(last)
    monkeypatch.setattr(Chatty, "told", "high")
    with pytest.raises(ReportError, match=r"mine is 'high' .str., not a number"):
        train(store, request_for(SGD, epochs=1, seed=4))


def test_a_trial_tells_how_its_steps_were_computed(store: Store) -> None:
    *_, last = train(store, request_for(SGD, epochs=1))
    execution = last["result"]["environment"]["execution"]
    assert execution["mode"] == "eager"
    assert "compile: always" in execution["reason"]
    never = replace(request_for(SGD, epochs=1), compile="never", seed=4)
    *_, last = train(store, never)
    assert "compile: never" in last["result"]["environment"]["execution"]["reason"]


def test_where_compiling_fails_the_trial_goes_on_and_says_so_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real failure: there is no compiler of that name on this machine."""
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    told = train(store, request_for(SGD, epochs=2, compile="always"))
    assert [kinds(step) for step in told] == [["compile.failed"], []]
    execution = told[-1]["result"]["environment"]["execution"]
    assert execution["mode"] == "eager"
    assert execution["failure"].startswith("Compiling failed:")
    plain = open_store(f"{store.url}-plain")
    write_marker(plain, "the-store")
    expected = train(plain, request_for(SGD, epochs=2, compile="never"))
    assert [numbers(step["epoch"]) for step in told] == [numbers(step["epoch"]) for step in expected]
