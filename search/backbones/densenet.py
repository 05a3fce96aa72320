"""DenseNet (Huang 2017, arXiv 1608.06993) with torchvision's parameter names."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from search.backbones.entries.densenet import DenseNetPlan
from search.backbones.layers import conv2d, initialise
from search.sites import Site


class DenseLayer(nn.Module):
    """N × C × H × W to N × growth × H × W. Slots: `pre` on the input, `residual` on the output."""

    def __init__(self, plan: DenseNetPlan, channels: int) -> None:
        super().__init__()
        narrow, spatial = plan.convs(channels)
        self.pre: nn.Module = nn.Identity()
        self.norm1 = nn.BatchNorm2d(narrow.in_channels)
        self.conv1 = conv2d(narrow)
        self.norm2 = nn.BatchNorm2d(spatial.in_channels)
        self.conv2 = conv2d(spatial)
        self.dropout = nn.Dropout(plan.dropout)
        self.residual: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.norm1(self.pre(x)).relu())
        return cast(Tensor, self.residual(self.dropout(self.conv2(self.norm2(x).relu()))))


class DenseBlock(nn.Module):
    """Layers `denselayer1` … that each read everything before them, and add `growth` channels."""

    def __init__(self, plan: DenseNetPlan, channels: int, count: int) -> None:
        super().__init__()
        for index in range(count):
            self.add_module(f"denselayer{index + 1}", DenseLayer(plan, channels + index * plan.growth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Transition(nn.Module):
    """Halves channels (1×1 convolution) and resolution (2×2 mean)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.pool(self.conv(self.norm(x).relu())))


class DenseNet(nn.Module):
    """Logits N × classes from images N × in_channels × H × W."""

    def __init__(self, plan: DenseNetPlan, in_channels: int, classes: int) -> None:
        super().__init__()
        channels = 2 * plan.growth
        self.features = nn.Module()
        self.features.conv0 = nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)
        self.features.norm0 = nn.BatchNorm2d(channels)
        self.features.pool0 = nn.MaxPool2d(3, 2, 1)
        for number, count in enumerate(plan.layers, start=1):
            self.features.add_module(f"denseblock{number}", DenseBlock(plan, channels, count))
            channels += count * plan.growth
            if number < len(plan.layers):
                self.features.add_module(f"transition{number}", Transition(channels))
                channels //= 2
        self.features.norm5 = nn.BatchNorm2d(channels)
        self.stage_ends = nn.ModuleList(nn.Identity() for _ in plan.layers)
        self.classifier = nn.Linear(channels, classes)
        initialise(self)

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]:
        """Parents and attributes of the site's points (see BackboneInfo)."""
        if site.position == "stage_end":
            return [(self.stage_ends, str(site.stage - 1))]
        layer = self.features.get_submodule(f"denseblock{site.stage}.denselayer{site.block}")
        return [(layer, "conv2" if site.position == "conv" else site.position)]

    def forward(self, x: Tensor) -> Tensor:
        features = self.features
        x = features.pool0(features.norm0(features.conv0(x)).relu())  # type: ignore[operator]
        for number, end in enumerate(self.stage_ends, start=1):
            x = end(features.get_submodule(f"denseblock{number}")(x))
            if number < len(self.stage_ends):
                x = features.get_submodule(f"transition{number}")(x)
        x = features.norm5(x).relu()  # type: ignore[operator]
        return cast(Tensor, self.classifier(x.mean(dim=(2, 3))))
