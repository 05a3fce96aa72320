"""Layers and initialisation that the backbones share."""

from __future__ import annotations

from torch import nn

from search.sites import ConvGeometry


def conv2d(geometry: ConvGeometry) -> nn.Conv2d:
    """The convolution that `geometry` describes."""
    g = geometry
    return nn.Conv2d(g.in_channels, g.out_channels, g.kernel_size, g.stride, g.padding, g.dilation, g.groups, g.bias)


def initialise(network: nn.Module) -> None:
    """He initialisation (He 2015, fan-out) of convolutions, BatchNorm at one and zero, as torchvision does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
