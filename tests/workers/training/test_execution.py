"""Compiled steps on the CPU: what they compute, when they are chosen, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.workers.training.conftest import MakeRequest
from workers.training.classification import ClassificationSession
from workers.training.compiling import Record
from workers.training.execution import COMPILED_WARM_STEPS, TIMED_STEPS, WARM_STEPS, Executor

UNTIL_CHOSEN = WARM_STEPS + TIMED_STEPS
UNTIL_COMPARED = UNTIL_CHOSEN + COMPILED_WARM_STEPS + TIMED_STEPS
CBAM = {"backbone": {"name": "resnet8", "width": 4}, "placements": {"2.1.residual": [{"kind": "cbam", "reduction": 4}]}}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Net(nn.Module):
    """Something small, with a buffer that counts the batches it was shown, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.out(self.drop(self.norm(inputs)))
        return answer


def losses(network: nn.Module, executor: Executor, steps: int) -> list[float]:
    """Plain SGD on noise."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    found = []

    def step(inputs: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = executor.forward(inputs).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    batches = [partial(step, torch.randn(16, 8, generator=generator)) for _ in range(steps)]
    for batch in batches:
        found.append(executor.step(batch))
    return [loss.item() for loss in found]


def executor_of(network: nn.Module, wish: Any = "auto", **more: Any) -> Executor:
    executor = Executor(network, wish, "net", **{"record": Record(), "backend": "eager", "measure": True, **more})
    executor.begin(10**9, frozen=False)
    return executor


def eagerly(steps: int) -> list[float]:
    network = Net()
    return losses(network, executor_of(network, "never"), steps)


def test_a_long_trial_is_compiled_after_its_first_steps_and_computes_the_same() -> None:
    network, record = Net(), Record()
    executor = executor_of(network, record=record)
    found = losses(network, executor, UNTIL_COMPARED)
    assert found == pytest.approx(eagerly(UNTIL_COMPARED), rel=1e-4)
    # what a backend that fuses nothing gives differs from machine to machine; that it was tried and timed does not
    [(kind, mode)] = record.found
    assert (kind, mode) == ("net", "compiled")
    [measured] = record.found[kind, mode]
    used = executor.used
    assert used.compile_seconds == pytest.approx(measured.seconds)
    assert used.eager_step_seconds / used.compiled_step_seconds == pytest.approx(measured.speedup)  # type: ignore[operator]
    assert used.mode == ("compiled" if measured.speedup >= 1.02 else "eager")
    assert used.failure is None
    executor.close()


def test_a_short_trial_stays_eager_and_says_why() -> None:
    network = Net()
    executor = executor_of(network)
    executor.begin(UNTIL_CHOSEN + 100, frozen=False)
    assert losses(network, executor, UNTIL_CHOSEN + 5) == eagerly(UNTIL_CHOSEN + 5)  # bit by bit
    assert executor.used.mode == "eager"
    assert "100 steps of" in executor.used.reason
    assert "(a guess)" in executor.used.reason


def test_a_trial_of_fewer_steps_than_are_measured_says_so() -> None:
    network = Net()
    executor = executor_of(network)
    losses(network, executor, 3)
    assert executor.used.mode == "eager"
    assert "no more steps" in executor.used.reason


def failing(*_: Any) -> Any:
    raise ValueError("no compiler\nand more")


@pytest.mark.parametrize("wish", ["auto", "always"])
def test_where_compiling_fails_training_goes_on_as_if_it_had_not_been_tried(wish: str) -> None:
    network, record = Net(), Record()
    executor = executor_of(network, wish, backend=failing, record=record)
    assert losses(network, executor, UNTIL_CHOSEN + 5) == eagerly(UNTIL_CHOSEN + 5)  # no batch norm saw a batch twice
    used = executor.used
    assert used.mode == "eager"
    assert used.failure == used.reason
    assert "no compiler" in used.reason
    [tried] = record.found["net", "compiled"]
    assert tried.speedup == 1  # the next trial of the kind does not try
    following = Net()
    second = executor_of(following, backend=failing, record=record)
    losses(following, second, UNTIL_CHOSEN + 5)
    assert (second.used.mode, second.used.failure) == ("eager", None)


def test_an_error_of_the_network_itself_is_not_taken_for_one_of_compiling() -> None:
    class Broken(Net):
        def forward(self, inputs: Tensor) -> Tensor:
            raise ZeroDivisionError("mine")

    network = Broken()
    with pytest.raises(ZeroDivisionError, match="mine"):
        losses(network, executor_of(network, "always"), 1)


def test_a_frozen_backbone_is_trained_eagerly_and_measured_later() -> None:
    network = Net()
    executor = executor_of(network)
    executor.begin(10**9, frozen=True)
    losses(network, executor, UNTIL_CHOSEN + 1)
    assert executor.used.reason == "Its backbone is frozen."
    executor.begin(10**9, frozen=False)
    losses(network, executor, UNTIL_CHOSEN)
    assert executor.used.eager_step_seconds is not None


def test_more_trials_than_torch_compiles_of_one_class_are_all_compiled() -> None:
    """torch gives up on a function after eight versions of it, without a word."""
    limit = torch._dynamo.config.recompile_limit
    compiled = 0

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return graph.forward

    for trial in range(limit + 2):
        network = Net()
        network.out = nn.Linear(8, 4 + trial)
        executor = executor_of(network, "always", backend=counting)
        losses(network, executor, 2)
        executor.close()
    assert compiled == limit + 2


def test_on_a_processor_auto_is_eager(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request())
    session.run_epoch()
    assert session.execution()["mode"] == "eager"
    assert "processor" in session.execution()["reason"]


def test_a_compiled_trial_can_be_resumed_by_an_eager_one(make_request: MakeRequest) -> None:
    """What is stored does not tell how it was computed."""
    request = make_request()
    assert replace(request, compile="always").key == request.key


@pytest.mark.slow
def test_a_compiled_trial_learns_the_same_as_an_eager_one(make_request: MakeRequest) -> None:
    recipe = {"augment": "shift", "shift_pixels": 1, "ema": 0.9, "lr": 0.02}
    request = make_request(recipe=recipe, architecture=CBAM, compile="always")
    compiled, eager = ClassificationSession(request), ClassificationSession(replace(request, compile="never"))
    for _ in range(2):
        ours, theirs = compiled.run_epoch(), eager.run_epoch()
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-2)
        assert ours.top1 == pytest.approx(theirs.top1, abs=0.01)
    assert compiled.execution()["mode"] == "compiled"
    assert compiled.execution()["compile_seconds"] > 0
    assert compiled.state().keys() == eager.state().keys()
    assert compiled.state()["network"].keys() == eager.state()["network"].keys()
    assert all(math.isfinite(value) for value in compiled.latency().values())
    ours, theirs = compiled.weights(), eager.weights()
    for name, value in ours.items():
        assert torch.allclose(value.float(), theirs[name].float(), rtol=0.02, atol=2e-3), name
    compiled.close()
