"""ResNet and ResNeXt (He 2016, sections 4.1 and 4.2; Xie 2017) with slots for attention around every block.

Parameter names are torchvision's, so that its state dicts load.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from search.backbones.entries.resnet import ResNetPlan, StagePlan, block_convs
from search.backbones.layers import conv2d, initialise
from search.sites import ConvGeometry, Site


class ParameterFree(nn.Module):
    """Shortcut without parameters: every stride-th pixel, missing channels zero (He 2016, section 4.2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        if outputs < inputs:
            raise ValueError("a parameter-free shortcut cannot lose channels")
        self.stride = stride
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.extra))


class Block(nn.Module):
    """A residual block of two (basic) or three (bottleneck) convolutions.

    Slots: `pre` before the branch, `residual` on its output before the add, `identity` on the shortcut (after
    its projection), `post` after add and ReLU.
    """

    def __init__(self, convs: tuple[ConvGeometry, ...], shortcut: nn.Module | None) -> None:
        super().__init__()
        self.pre: nn.Module = nn.Identity()
        for number, conv in enumerate(convs, start=1):
            self.add_module(f"conv{number}", conv2d(conv))
            self.add_module(f"bn{number}", nn.BatchNorm2d(conv.out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut
        self.residual: nn.Module = nn.Identity()
        self.identity: nn.Module = nn.Identity()
        self.post: nn.Module = nn.Identity()
        self.convolutions = len(convs)
        self.spatial = tuple(f"conv{number}" for number, conv in enumerate(convs, start=1) if conv.kernel_size > 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.pre(x)
        for number in range(1, self.convolutions + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < self.convolutions:
                out = self.relu(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return cast(Tensor, self.post(self.relu(self.residual(out) + self.identity(shortcut))))


def make_block(plan: ResNetPlan, inputs: int, stage: StagePlan, stride: int) -> Block:
    """One block; the shortcut is the identity wherever shapes allow."""
    shortcut: nn.Module | None = None
    if stride != 1 or inputs != stage.outputs:
        if plan.shortcut == "projection":
            conv = conv2d(ConvGeometry(inputs, stage.outputs, 1, stride))
            shortcut = nn.Sequential(conv, nn.BatchNorm2d(stage.outputs))
        else:
            shortcut = ParameterFree(inputs, stage.outputs, stride)
    return Block(block_convs(plan, inputs, stage.inner, stage.outputs, stride), shortcut)


class ResNet(nn.Module):
    """Logits N × classes from images N × in_channels × H × W."""

    def __init__(self, plan: ResNetPlan, in_channels: int, classes: int) -> None:
        super().__init__()
        kernel, stride, padding = (3, 1, 1) if plan.stem == "cifar" else (7, 2, 3)
        self.conv1 = nn.Conv2d(in_channels, plan.stem_channels, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(plan.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.Identity() if plan.stem == "cifar" else nn.MaxPool2d(3, 2, 1)
        channels = plan.stem_channels
        for number, stage in enumerate(plan.stages, start=1):
            blocks = []
            for index in range(stage.blocks):
                blocks.append(make_block(plan, channels, stage, stage.stride if index == 0 else 1))
                channels = stage.outputs
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.depth = len(plan.stages)
        self.stage_ends = nn.ModuleList(nn.Identity() for _ in plan.stages)
        self.fc = nn.Linear(channels, classes)
        initialise(self)

    def stage(self, number: int) -> nn.Sequential:
        return cast(nn.Sequential, self.get_submodule(f"layer{number}"))

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]:
        """Parents and attributes of the site's points (see BackboneInfo)."""
        if site.position == "stage_end":
            return [(self.stage_ends, str(site.stage - 1))]
        block = cast(Block, self.stage(site.stage)[site.block - 1])
        return [(block, name) for name in (block.spatial if site.position == "conv" else (site.position,))]

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.depth + 1):
            x = self.stage_ends[number - 1](self.stage(number)(x))
        return cast(Tensor, self.fc(x.mean(dim=(2, 3))))
