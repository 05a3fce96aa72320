"""Sessions end to end on real digits: learning, repeatability, resuming, divergence."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from search.errors import SpecError
from search.recipes import RECIPES, resolve
from search.weights import VARIABLE, fingerprints
from tests.workers.datasets.conftest import write_images
from workers.datasets import DatasetError
from workers.datasets.loading import entry
from workers.training.classification import ClassificationSession
from workers.training.errors import DivergedError, StateError, TrainingError
from workers.training.evaluators import start_session
from workers.training.request import EpochResult, TrialRequest

MakeRequest = Callable[..., TrialRequest]
CBAM = {"backbone": {"name": "resnet8", "width": 4}, "placements": {"2.1.residual": [{"kind": "cbam", "reduction": 4}]}}


def figures(result: EpochResult) -> dict[str, Any]:
    """All of a result but its times."""
    return {k: v for k, v in asdict(result).items() if k not in ("seconds", "images_per_second", "wait_share")}


def test_it_learns(make_request: MakeRequest) -> None:
    session = start_session(make_request(epochs=6))
    results = [session.run_epoch() for _ in range(6)]
    assert [result.epoch for result in results] == list(range(1, 7))
    assert results[-1].top1 > 0.8
    assert results[-1].top1 <= results[-1].top5 <= 1
    assert results[-1].train_loss < results[0].train_loss
    with pytest.raises(TrainingError, match="All 6 epochs"):
        session.run_epoch()


def test_one_seed_gives_one_result_whatever_ran_before(make_request: MakeRequest) -> None:
    first = ClassificationSession(make_request())
    torch.manual_seed(123)
    torch.rand(7)
    second = ClassificationSession(make_request())
    other = ClassificationSession(make_request(seed=1))
    results = [figures(session.run_epoch()) for session in (first, second, other)]
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_a_session_leaves_the_default_generator_alone(make_request: MakeRequest) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ClassificationSession(make_request()).run_epoch()
    assert torch.equal(torch.rand(3), expected)


MODERN = {"augment": "trivial", "shift_pixels": 1, "mixup": 0.2, "cutmix": 1.0, "ema": 0.9, "class_weights": "balanced"}


@pytest.mark.parametrize(
    "recipe", [{}, {"optimizer": "adamw", "lr": 0.01, "augment": "shift", "shift_pixels": 1}, MODERN]
)
def test_interrupted_is_uninterrupted_bit_by_bit(make_request: MakeRequest, recipe: dict[str, Any]) -> None:
    request = make_request(recipe=recipe, epochs=3, architecture=CBAM)
    through = ClassificationSession(request)
    expected = [figures(through.run_epoch()) for _ in range(3)]

    before = ClassificationSession(request)
    before.run_epoch()
    file = io.BytesIO()
    torch.save(before.state(), file)
    before.run_epoch()
    file.seek(0)
    after = ClassificationSession(request)
    after.load(torch.load(file, weights_only=True))
    assert after.epoch == 1
    assert [figures(after.run_epoch()) for _ in range(2)] == expected[1:]
    for name, value in through.network.state_dict().items():
        assert torch.equal(value, after.network.state_dict()[name]), name


def test_a_state_does_not_change_with_the_session(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request())
    state = session.state()
    before = {name: value.clone() for name, value in state["network"].items()}
    session.run_epoch()
    assert all(torch.equal(value, before[name]) for name, value in state["network"].items())


def test_a_foreign_or_damaged_state_is_refused(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request())
    with pytest.raises(StateError, match="another trial"):
        ClassificationSession(make_request(seed=1)).load(session.state())
    with pytest.raises(StateError, match="does not fit"):
        session.load({**session.state(), "network": {}})
    with pytest.raises(StateError, match="does not fit"):
        session.load({"key": session.request.key})


def test_divergence_is_told(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request(recipe={"lr": 10.0, "weight_decay": 1.0, "warmup": 0.0}))
    with torch.no_grad():
        next(session.network.parameters()).fill_(math.inf)
    with pytest.raises(DivergedError, match="epoch 1"):
        session.run_epoch()


def test_the_test_split_is_out_of_reach_unless_allowed(make_request: MakeRequest) -> None:
    with pytest.raises(TrainingError, match="may not touch"):
        ClassificationSession(make_request()).evaluate_test()
    session = ClassificationSession(make_request(evaluate_test=True))
    result = session.evaluate_test()
    assert 0 <= result.test_top1 <= result.test_top5 <= 1
    # on an untrained network ten classes are a guess, close to ln 10
    assert result.test_loss == pytest.approx(math.log(10), abs=1)


def test_bf16_trains_as_well(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request(recipe={"precision": "bf16"}, epochs=2))
    session.run_epoch()
    assert session.run_epoch().top1 > 0.3
    assert all(p.dtype == torch.float32 for p in session.network.parameters())


def test_changed_data_and_a_wrong_task_are_told(make_request: MakeRequest) -> None:
    with pytest.raises(DatasetError, match="changed"):
        ClassificationSession(make_request(fingerprint="0" * 64))
    request = make_request()
    with pytest.raises(DatasetError, match="expects"):
        ClassificationSession(replace(request, task=replace(request.task, classes=11)))


def test_a_request_that_does_not_fit_names_its_field(make_request: MakeRequest) -> None:
    request = make_request()
    with pytest.raises(SpecError, match=r"training\.lr"):
        start_session(replace(request, recipe={**request.recipe, "lr": -1.0}))
    with pytest.raises(SpecError, match=r"dataset\.name"):
        start_session(replace(request, dataset="nothing"))


def test_threads_are_set_from_the_request(make_request: MakeRequest) -> None:
    ClassificationSession(make_request(threads=2))
    assert torch.get_num_threads() == 2
    ClassificationSession(make_request(threads=1))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("name", [info.name for info in RECIPES])
def test_every_recipe_learns_digits(make_request: MakeRequest, name: str) -> None:
    """Shortened, with batches that fit the data; far above guessing is enough to see that nothing is broken."""
    recipe = resolve(name, {"batch_size": 32, "shift_pixels": 1, "augment": "shift", "epochs": 6}).model_dump(
        mode="json"
    )
    session = ClassificationSession(replace(make_request(), recipe=recipe, epochs=6))
    for _ in range(6):
        result = session.run_epoch()
    assert result.top1 > 0.5
    metrics = session.metrics()
    assert metrics["top1"] == result.top1
    assert 0 < metrics["balanced_accuracy"] < 1
    assert 0 < metrics["calibration_error"] < 1


def test_weights_are_those_that_are_judged(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request(recipe={"ema": 0.9}))
    session.run_epoch()
    weights = session.weights()
    assert weights.keys() == session.network.state_dict().keys()
    assert any(not torch.equal(value, session.network.state_dict()[name]) for name, value in weights.items())


def test_pretrained_weights_wait_for_the_new_modules(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ClassificationSession(make_request())
    before.run_epoch()
    save_file(before.weights(), tmp_path / "mine.safetensors")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    session = ClassificationSession(
        make_request(
            architecture=CBAM, weights="mine", weights_fingerprint=fingerprints(tmp_path)["mine"],
            recipe={"freeze_epochs": 1, "backbone_lr": 0.1},
        )
    )  # fmt: skip
    old = before.network.state_dict()
    session.run_epoch()
    after = session.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in old.items())
    session.run_epoch()
    assert any(not torch.equal(session.network.state_dict()[name], value) for name, value in old.items())


def test_images_in_files_train_as_images_in_memory(
    make_request: MakeRequest, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same order, pixels, normalisation and class weights: the same numbers, to the rounding of the statistics."""
    for name, count, seed in (("train", 60, 0), ("val", 20, 40_000), ("test", 20, 80_000)):
        write_images(data / "photos" / name, {"a": count // 3, "b": 2 * count // 3}, size=(24, 20), seed=seed)
    options = {"image_size": 16, "normalisation": "imagenet"}
    resolved = entry("photos").resolve(options)
    request = make_request(
        dataset="photos", dataset_options=options, task=resolved.task, fingerprint="", epochs=2, evaluate_test=True,
        recipe={"batch_size": 16, "class_weights": "balanced"},
    )  # fmt: skip
    found = []
    for limit in ("1GiB", "1000"):
        monkeypatch.setenv("ATTUNE_DATA_MEMORY", limit)
        session = ClassificationSession(request)
        results = [session.run_epoch() for _ in range(2)]
        found.append(([figures(result) for result in results], session.metrics(), session.evaluate_test()))
        session.close()
    assert found[0] == found[1]
    assert 0 < results[0].wait_share < 1
