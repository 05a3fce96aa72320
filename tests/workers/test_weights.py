"""Initial weights from the operator's folder to a trial's first step: published, planned, requested, loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from db import catalog
from db.engine import writing
from search.architecture import Architecture
from search.errors import SpecError
from search.plan import SearchPlan, make_plan
from search.spec import SearchSpec
from tests.workers.conftest import Lab
from workers.datasets.loading import entry
from workers.evaluation import conditions_of, evaluation_key, request_of
from workers.failures import kind_of
from workers.ledger import Ledger
from workers.orders import Order
from workers.training.classification import ClassificationSession
from workers.training.errors import WeightsError
from workers.training.request import TrialRequest
from workers.weights import check_weights, readable_weights

EPOCHS = 2


def plan_of(weights: str | None = "mine", **changed: Any) -> SearchPlan:
    asked = {
        "name": "x",
        "dataset": {"name": "digits"},
        "backbone": {"name": "resnet8", "width": 8},
        "init": {"weights": weights},
        "space": {"modules": ["none", "gc", "cbam", "aw"], "reduction": [4], "pattern": ["every"]},
        "training": {"epochs": EPOCHS},
        **changed,
    }
    return make_plan(SearchSpec.parse(asked), {"digits": entry("digits")}, readable_weights())


def request_for(plan: SearchPlan, *kinds: str, seed: int = 0) -> TrialRequest:
    """Trains the architecture with `kinds` in its stages, in order."""
    found = [plan.space.architecture(g) for g in plan.space.enumerate()]
    named = [Architecture.make(plan.backbone, {})] if not kinds else [a for a in found if kinds_of(a) == kinds]
    order = Order("explore", "explore", named[0], seed, EPOCHS, "key")
    return request_of(plan, order, threads=1)


def kinds_of(architecture: Architecture) -> tuple[str, ...]:
    return tuple(module.kind for _, modules in architecture.placements for module in modules)


def logits(network: nn.Module) -> torch.Tensor:
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return network.eval()(x)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """The bare backbone after two epochs on the digits."""
    session = ClassificationSession(request_for(plan_of(None)))
    for _ in range(EPOCHS):
        session.run_epoch()
    return session.network


@pytest.fixture
def folder(trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.save(trained.state_dict(), tmp_path / "mine.pt")
    monkeypatch.setenv("ATTUNE_WEIGHTS", str(tmp_path))
    return tmp_path


def test_a_trial_starts_from_them_and_identities_change_nothing(folder: Path, trained: nn.Module) -> None:
    plan = plan_of()
    check_weights(plan)
    before = logits(trained)
    for kinds in ((), ("gc", "gc", "gc")):
        session = ClassificationSession(TrialRequest.from_json(request_for(plan, *kinds, seed=3).to_json()))
        torch.testing.assert_close(logits(session.network), before)
        fresh = ClassificationSession(request_for(plan_of(None), *kinds, seed=3))
        assert session.run_epoch().train_loss < fresh.run_epoch().train_loss


def test_modules_are_drawn_as_without_weights(folder: Path) -> None:
    kinds = ("cbam", "cbam", "cbam")
    with_them, without = (ClassificationSession(request_for(plan_of(w), *kinds)).network for w in ("mine", None))
    own = {name: value for name, value in without.state_dict().items() if ".residual." in name}
    assert own
    assert all(torch.equal(with_them.state_dict()[name], value) for name, value in own.items())
    assert not torch.equal(logits(with_them), logits(without))


def test_a_replaced_convolution_starts_from_its_kernel(folder: Path, trained: nn.Module) -> None:
    network = ClassificationSession(request_for(plan_of(), "aw", "aw", "aw")).network
    name = "layer2.0.conv1.weight"
    assert torch.equal(network.state_dict()[name], trained.state_dict()[name])


def test_results_are_shared_only_under_the_same_file(folder: Path) -> None:
    def key(plan: SearchPlan) -> str:
        return evaluation_key(plan, Architecture.make(plan.backbone, {}), seed=0, epochs=1, test=False)

    plan = plan_of()
    (folder / "same.pt").write_bytes((folder / "mine.pt").read_bytes())
    (folder / "other.pt").write_bytes(b"other")
    assert key(plan) == key(plan_of("same"))
    assert len({key(plan), key(plan_of("other")), key(plan_of(None))}) == 3
    order = Order("explore", "explore", Architecture.make(plan.backbone, {}), 0, 1, "key")
    assert conditions_of(plan, order)["weights"] == readable_weights()["mine"]


def lose(folder: Path) -> None:
    (folder / "mine.pt").unlink()


def change(folder: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, folder / "mine.pt")


def lose_all(folder: Path) -> None:
    lose(folder)
    folder.rmdir()


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (lose, "There are no weights 'mine'"),
        (change, "another than the search's"),
        (lose_all, "cannot be read"),
    ],
)
def test_weights_that_go_away_are_a_clear_failure(folder: Path, happens: Any, told: str) -> None:
    plan = plan_of()
    happens(folder)
    with pytest.raises(WeightsError, match=told) as caught:
        ClassificationSession(request_for(plan))
    assert kind_of(caught.value) == "weights"
    with pytest.raises(SpecError, match=told):
        check_weights(plan)


def test_weights_of_another_backbone_are_refused_before_anything_trains(folder: Path) -> None:
    plan = plan_of(backbone={"name": "resnet8", "width": 16})
    with pytest.raises(SpecError, match="not of this backbone"):
        check_weights(plan)
    with pytest.raises(WeightsError, match="not of this backbone"):
        ClassificationSession(request_for(plan))


def test_a_request_without_weights_has_none() -> None:
    request = request_for(plan_of(None))
    assert (request.weights, request.weights_fingerprint) == (None, "")
    assert replace(request, weights="mine").key != request.key


def test_an_unreadable_folder_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_WEIGHTS", str(tmp_path / "nowhere"))
    assert readable_weights() == {}
    for name in ("a.pt", "a.pth"):
        (tmp_path / name).touch()
    monkeypatch.setenv("ATTUNE_WEIGHTS", str(tmp_path))
    assert readable_weights() == {}


def test_a_driver_reads_what_machines_have_published(lab: Lab) -> None:
    search = lab.submit()
    with writing(lab.engine) as session:
        catalog.publish_node(session, "a", {"cpus": 1, "weights": {"x": "1", "y": "1"}})
        catalog.publish_node(session, "b", {"cpus": 1, "weights": {"y": "2", "z": "2"}})
    ledger = Ledger(lab.engine, search, 1, evaluation_lease=60.0)
    assert ledger.weights() == {"x": "1", "z": "2"}
