"""Pre-activation ResNet (He 2016b, arXiv 1603.05027) and WideResNet (Zagoruyko 2016, arXiv 1605.07146).

Each convolution comes after its BatchNorm and ReLU. Where a block changes the shape, and in the first block, the
first activation comes before the paths split (appendix of He 2016b); a last one follows the last block.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from search.backbones.entries.preact import PreActPlan
from search.backbones.entries.resnet import ResNetPlan, StagePlan, block_convs
from search.backbones.layers import conv2d, initialise
from search.sites import ConvGeometry, Site


class Block(nn.Module):
    """A pre-activation block of two or three convolutions.

    Slots: `pre` after the first activation, on the branch alone; `residual` on the branch's output before the
    add; `identity` on the shortcut (after its projection); `post` after the add.
    shared: the first activation comes before the paths split.
    """

    def __init__(
        self, convs: tuple[ConvGeometry, ...], shortcut: nn.Module | None, shared: bool, dropout: float
    ) -> None:
        super().__init__()
        for number, conv in enumerate(convs, start=1):
            self.add_module(f"bn{number}", nn.BatchNorm2d(conv.in_channels))
            self.add_module(f"conv{number}", conv2d(conv))
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = shortcut
        self.pre: nn.Module = nn.Identity()
        self.residual: nn.Module = nn.Identity()
        self.identity: nn.Module = nn.Identity()
        self.post: nn.Module = nn.Identity()
        self.shared = shared
        self.convolutions = len(convs)
        self.spatial = tuple(f"conv{number}" for number, conv in enumerate(convs, start=1) if conv.kernel_size > 1)

    def activated(self, number: int, x: Tensor) -> Tensor:
        return cast(Tensor, self.relu(getattr(self, f"bn{number}")(x)))

    def forward(self, x: Tensor) -> Tensor:
        active = self.activated(1, x)
        skip = active if self.shared else x
        out = self.get_submodule("conv1")(self.pre(active))
        for number in range(2, self.convolutions + 1):
            out = getattr(self, f"conv{number}")(self.dropout(self.activated(number, out)))
        if self.shortcut is not None:
            skip = self.shortcut(skip)
        return cast(Tensor, self.post(self.residual(out) + self.identity(skip)))


def make_block(plan: ResNetPlan, inputs: int, stage: StagePlan, stride: int, first: bool, dropout: float) -> Block:
    """One block; `first` of the whole network."""
    shortcut = None
    if stride != 1 or inputs != stage.outputs:
        shortcut = conv2d(ConvGeometry(inputs, stage.outputs, 1, stride))
    convs = block_convs(plan, inputs, stage.inner, stage.outputs, stride)
    return Block(convs, shortcut, first or shortcut is not None, dropout)


class PreActResNet(nn.Module):
    """Logits N × classes from images N × in_channels × H × W."""

    def __init__(self, plan: PreActPlan, in_channels: int, classes: int) -> None:
        super().__init__()
        layout = plan.layout
        kernel, stride, padding = (3, 1, 1) if layout.stem == "cifar" else (7, 2, 3)
        self.conv1 = nn.Conv2d(in_channels, layout.stem_channels, kernel, stride, padding, bias=False)
        self.maxpool: nn.Module = nn.Identity() if layout.stem == "cifar" else nn.MaxPool2d(3, 2, 1)
        channels = layout.stem_channels
        for number, stage in enumerate(layout.stages, start=1):
            blocks = []
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                first = number == 1 and index == 0
                blocks.append(make_block(layout, channels, stage, stride, first, plan.dropout))
                channels = stage.outputs
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.depth = len(layout.stages)
        self.stage_ends = nn.ModuleList(nn.Identity() for _ in layout.stages)
        self.bn = nn.BatchNorm2d(channels)
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
        x = self.maxpool(self.conv1(x))
        for number in range(1, self.depth + 1):
            x = self.stage_ends[number - 1](self.stage(number)(x))
        return cast(Tensor, self.fc(self.bn(x).relu().mean(dim=(2, 3))))
