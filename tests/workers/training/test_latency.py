"""Networks are timed as they would be deployed."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.architecture import Architecture, Task
from search.models import build
from tests.workers.training.conftest import MakeRequest
from workers.training.classification import ClassificationSession
from workers.training.latency import fused, latency


def stirred(network: nn.Module) -> nn.Module:
    """Norms that change what passes through them."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("backbone", "left"),
    # in networks of pre-activation only norms that follow a convolution inside a block can be part of it
    [("resnet18", 0), ("mobilenet_v2", 0), ("preact_resnet18", 9)],
)
def test_fused_networks_answer_the_same_without_their_norms(backbone: str, left: int) -> None:
    network = stirred(
        build(Architecture.from_json({"backbone": {"name": backbone}, "placements": {}}), Task((3, 32, 32), 7))
    )
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    made = fused(network, images)
    assert norms(made) == left < norms(network)
    with torch.inference_mode():
        expected = network(images)
        assert torch.allclose(made(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


class Forked(nn.Module):
    """The second convolution's output is taken by its norm and by the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.second_norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        taken = self.second(F.relu(self.first_norm(self.first(images))))
        return (self.second_norm(taken) + taken).mean((2, 3))


def test_a_convolution_whose_output_others_take_too_stays_as_it_is() -> None:
    network = stirred(Forked())
    images = torch.randn(2, 3, 12, 12)
    made = fused(network, images)
    assert norms(made) == 1
    assert isinstance(made.get_submodule("first_norm"), nn.Identity)
    with torch.inference_mode():
        assert torch.allclose(made(images), network(images), atol=1e-5)


class Sleeping(nn.Module):
    """Takes 2 ms, and now and then 30."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        time.sleep(0.03 if self.calls % 10 == 0 else 0.002)
        return images


def test_the_median_is_of_the_usual_pass_and_p95_of_the_slow_ones() -> None:
    found = latency(Sleeping().eval(), torch.zeros(1), nullcontext)
    assert 2 <= found.median < 15
    assert found.p95 >= 28


def test_a_trained_network_is_timed_and_stays_as_it_is(make_request: MakeRequest) -> None:
    session = ClassificationSession(make_request(epochs=1))
    session.run_epoch()
    before = {name: value.clone() for name, value in session.network.state_dict().items()}
    found = session.latency()
    assert set(found) == {"latency_ms", "latency_p95_ms", "latency_64_ms", "latency_64_p95_ms"}
    assert 0 < found["latency_ms"] < found["latency_64_ms"]
    assert found["latency_ms"] <= found["latency_p95_ms"]
    after = session.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert session.metrics()["top1"] >= 0
