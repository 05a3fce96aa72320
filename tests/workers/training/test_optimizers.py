"""Groups of parameters, frozen backbones and averaged weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from search.recipes import Recipe
from workers.training.averaging import MovingAverage
from workers.training.optimizers import freeze, frozen_norms, make_optimizer, set_rate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3))


OLD = {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_every_parameter_is_in_the_group_that_the_recipe_gives_it() -> None:
    net = network()
    recipe = Recipe(weight_decay=0.1, backbone_lr=0.25)
    optimizer = make_optimizer(net, recipe, OLD)
    set_rate(optimizer, 2.0)
    found = {id(p): (g["weight_decay"], g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    wanted = {"0.weight": (0.1, 0.5), "0.bias": (0.0, 0.5), "1.weight": (0.0, 0.5), "1.bias": (0.0, 0.5),
              "3.weight": (0.1, 2.0), "3.bias": (0.0, 2.0)}  # fmt: skip
    assert {name: found[id(p)] for name, p in net.named_parameters()} == wanted
    everything = make_optimizer(net, Recipe(weight_decay=0.1, decay_vectors=True))
    assert {g["weight_decay"] for g in everything.param_groups} == {0.1}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_is_frozen_rests_and_learns_afterwards(name: str) -> None:
    net = network()
    optimizer = make_optimizer(net, Recipe.model_validate({"optimizer": name}), OLD)
    images = torch.randn(8, 1, 4, 4)

    def step() -> dict[str, torch.Tensor]:
        before = copy.deepcopy(net.state_dict())
        net.train()
        for norm in frozen_norms(net):
            norm.eval()
        optimizer.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()
        return {n for n, v in net.state_dict().items() if not torch.equal(v, before[n])}

    freeze(net, OLD, True)
    assert step() == {"3.weight", "3.bias"}
    freeze(net, OLD, False)
    assert step() >= {"0.weight", "1.weight", "1.running_mean", "3.weight"}


def test_the_average_follows_its_closed_form() -> None:
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, decay=0.5)
    expected = None
    for step, value in enumerate([1.0, 2.0, 4.0, 8.0, 16.0]):
        with torch.no_grad():
            net.weight.fill_(value)
        average.update(net)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.network.weight.item() == pytest.approx(expected)


def test_the_average_takes_statistics_and_counters_along() -> None:
    net = network()
    average = MovingAverage(net, decay=0.9)
    for _ in range(3):
        net(torch.randn(8, 1, 4, 4))
        average.update(net)
    state = dict(average.network.named_buffers())
    assert state["1.num_batches_tracked"] == 3
    assert not torch.equal(state["1.running_mean"], torch.zeros(2))
