"""Where torchvision has the network, its state dict loads and gives its logits."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from search.architecture import Architecture, Backbone, Task
from search.backbones import BACKBONES
from search.models import build

THEIRS = {info.name: info.pretrained_as for info in BACKBONES if info.pretrained_as}


def random_network(name: str, classes: int) -> nn.Module:
    """torchvision's network with random weights and statistics, in eval mode; scaled so that signals neither die
    nor explode."""
    with torch.device("meta"):
        network: nn.Module = torchvision.models.get_model(name, num_classes=classes)
    network = network.to_empty(device="cpu")
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data.uniform_(-1, 1, generator=rng).mul_((3 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.data.uniform_(-0.1, 0.1, generator=rng)
        elif isinstance(module, nn.BatchNorm2d):
            for values, low, high in [
                (module.weight, 0.5, 1),
                (module.bias, -0.1, 0.1),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.5, 1.5),
            ]:
                assert values is not None
                values.data.uniform_(low, high, generator=rng)
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.zero_()
    return network.eval()


def ours_with(state: dict[str, torch.Tensor], name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        network = build(Architecture.make(Backbone.make(name), {}), Task((3, 65, 49), classes))
    network.load_state_dict(state, assign=True)
    return network.eval()


def test_torchvision_has_them() -> None:
    assert set(THEIRS) == {
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "mobilenet_v2",
        "vgg16_bn",
        "densenet121",
    }


@pytest.mark.parametrize("name", THEIRS)
def test_logits_equal_torchvisions(name: str) -> None:
    theirs = random_network(str(THEIRS[name]), 5)
    x = torch.rand(2, 3, 65, 49, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 1e-4
        torch.testing.assert_close(ours_with(theirs.state_dict(), name, 5)(x), expected)
