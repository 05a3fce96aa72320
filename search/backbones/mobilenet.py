"""MobileNetV1 (Howard 2017, arXiv 1704.04861) and MobileNetV2 (Sandler 2018, arXiv 1801.04381; torchvision's names)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from search.backbones.entries.mobilenet import Inverted, Separable, V1Plan, V2Plan
from search.backbones.layers import conv2d, initialise
from search.sites import ConvGeometry, Site


def conv_unit(conv: ConvGeometry, activation: type[nn.Module]) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    return nn.Sequential(conv2d(conv), nn.BatchNorm2d(conv.out_channels), activation(inplace=True))


class SeparableBlock(nn.Module):
    """Depthwise and pointwise unit. Slots: `residual_depthwise` and `residual_pointwise`, after the
    non-linearity (Hu 2018, section 3.3, for networks without shortcuts)."""

    def __init__(self, plan: Separable) -> None:
        super().__init__()
        self.depthwise = conv_unit(plan.depthwise, nn.ReLU)
        self.residual_depthwise: nn.Module = nn.Identity()
        self.pointwise = conv_unit(plan.pointwise, nn.ReLU)
        self.residual_pointwise: nn.Module = nn.Identity()

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]:
        if site.position == "conv":
            return [(self.pointwise, "0")]
        return [(self, "residual_depthwise"), (self, "residual_pointwise")]

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual_depthwise(self.depthwise(x))
        return cast(Tensor, self.residual_pointwise(self.pointwise(x)))


class MobileNetV1(nn.Module):
    """Logits N × classes from images N × in_channels × H × W."""

    def __init__(self, plan: V1Plan, in_channels: int, classes: int) -> None:
        super().__init__()
        self.stem = conv_unit(ConvGeometry(in_channels, plan.stem, 3, 2, 1), nn.ReLU)
        self.stages = nn.ModuleList(nn.Sequential(*map(SeparableBlock, blocks)) for blocks in plan.stages)
        self.stage_ends = nn.ModuleList(nn.Identity() for _ in plan.stages)
        self.fc = nn.Linear(plan.stages[-1][-1].outputs, classes)
        initialise(self)

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]:
        """Parents and attributes of the site's points (see BackboneInfo)."""
        if site.position == "stage_end":
            return [(self.stage_ends, str(site.stage - 1))]
        stage = cast(nn.Sequential, self.stages[site.stage - 1])
        return cast(SeparableBlock, stage[site.block - 1]).slots(site)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage, end in zip(self.stages, self.stage_ends, strict=True):
            x = end(stage(x))
        return cast(Tensor, self.fc(x.mean(dim=(2, 3))))


class InvertedBlock(nn.Module):
    """Expand, depthwise, project, and the shortcut where shapes allow; `conv` as torchvision numbers it.

    Slots: `pre` before the branch, `residual` on its output before the add, `identity`, `post` after the add.
    """

    def __init__(self, plan: Inverted) -> None:
        super().__init__()
        expand = [] if plan.expand is None else [conv_unit(plan.expand, nn.ReLU6)]
        self.conv = nn.Sequential(
            *expand, conv_unit(plan.depthwise, nn.ReLU6), conv2d(plan.project), nn.BatchNorm2d(plan.outputs)
        )
        self.has_shortcut = plan.has_shortcut
        self.pointwise: list[tuple[nn.Module, str]] = [(self.conv, "1")]
        if expand:
            self.pointwise = [(expand[0], "0"), (self.conv, "2")]
        self.pre: nn.Module = nn.Identity()
        self.residual: nn.Module = nn.Identity()
        self.identity: nn.Module = nn.Identity()
        self.post: nn.Module = nn.Identity()

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]:
        return self.pointwise if site.position == "conv" else [(self, site.position)]

    def forward(self, x: Tensor) -> Tensor:
        out = self.residual(self.conv(self.pre(x)))
        if self.has_shortcut:
            out = out + self.identity(x)
        return cast(Tensor, self.post(out))


class MobileNetV2(nn.Module):
    """Logits N × classes from images N × in_channels × H × W."""

    def __init__(self, plan: V2Plan, in_channels: int, classes: int) -> None:
        super().__init__()
        blocks = [InvertedBlock(block) for stage in plan.stages for block in stage]
        self.features = nn.Sequential(
            conv_unit(ConvGeometry(in_channels, plan.stem, 3, 2, 1), nn.ReLU6),
            *blocks,
            conv_unit(ConvGeometry(plan.stages[-1][-1].outputs, plan.last, 1), nn.ReLU6),
        )
        self.stage_ends = nn.ModuleList(nn.Identity() for _ in plan.stages)
        self.classifier = nn.Sequential(nn.Dropout(plan.dropout), nn.Linear(plan.last, classes))
        counts = [len(stage) for stage in plan.stages]
        self.firsts = [1 + sum(counts[:index]) for index in range(len(counts) + 1)]
        initialise(self)
        nn.init.normal_(cast(nn.Linear, self.classifier[1]).weight, 0, 0.01)

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]:
        """Parents and attributes of the site's points (see BackboneInfo)."""
        if site.position == "stage_end":
            return [(self.stage_ends, str(site.stage - 1))]
        block = self.features[self.firsts[site.stage - 1] + site.block - 1]
        return cast(InvertedBlock, block).slots(site)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features[0](x)
        for index, end in enumerate(self.stage_ends):
            for block in range(self.firsts[index], self.firsts[index + 1]):
                x = self.features[block](x)
            x = end(x)
        x = self.features[len(self.features) - 1](x)
        return cast(Tensor, self.classifier(x.mean(dim=(2, 3))))
