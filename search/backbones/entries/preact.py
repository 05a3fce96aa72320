"""Pre-activation ResNets and WideResNet-28-10: names, options and geometry (He 2016b; Zagoruyko 2016)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from search.backbones.entries.resnet import (
    BasicOptions,
    BottleneckOptions,
    ResNetPlan,
    StagePlan,
    imagenet_plan,
    resnet_geometry,
)
from search.backbones.registry import BACKBONES, BackboneInfo
from search.registry import Options
from search.sites import Shape, StageGeometry

HE = "He 2016, Identity Mappings in Deep Residual Networks (arXiv 1603.05027)"


class SmallPreActOptions(Options):
    """Small-image pre-activation ResNet."""

    width: int = Field(16, ge=1, le=1024, description="Channels of stage 1, before a bottleneck's expansion.")


class WideOptions(Options):
    """WideResNet for small images."""

    widen: int = Field(10, ge=1, le=32, description="The factor k: stages have 16k, 32k and 64k channels.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout between a block's convolutions (section 2.4).")


@dataclass(frozen=True)
class PreActPlan:
    """A ResNet's layout, with activations before the convolutions."""

    layout: ResNetPlan
    dropout: float = 0.0


def small_plan(blocks: int, width: int, stem: int, bottleneck: bool, dropout: float = 0.0) -> PreActPlan:
    """Three stages for small images."""
    expansion = 4 if bottleneck else 1
    stages = tuple(StagePlan(blocks, width * 2**i, width * 2**i * expansion, 1 if i == 0 else 2) for i in range(3))
    return PreActPlan(ResNetPlan(stages, stem, bottleneck, stem="cifar"), dropout)


def add(name: str, title: str, source: str, options: type[Options], plan: Callable[[Any], PreActPlan]) -> None:
    """Registers one name of the family."""

    def geometry(values: Any, image: Shape) -> tuple[StageGeometry, ...]:
        return resnet_geometry(plan(values).layout, image)

    BACKBONES.add(BackboneInfo(name, title, source, options, geometry, "search.backbones.preact:PreActResNet", plan))


def add_imagenet(depth: int, blocks: tuple[int, ...], bottleneck: bool) -> None:
    add(
        f"preact_resnet{depth}",
        f"Pre-activation ResNet-{depth}",
        f"{HE}, section 3 and appendix",
        BottleneckOptions if bottleneck else BasicOptions,
        lambda options: PreActPlan(imagenet_plan(blocks, options, bottleneck)),
    )


def add_small(depth: int, bottleneck: bool) -> None:
    blocks = (depth - 2) // (9 if bottleneck else 6)
    add(
        f"preact_resnet{depth}",
        f"Pre-activation ResNet-{depth} for small images",
        f"{HE}, section 3.1",
        SmallPreActOptions,
        lambda options: small_plan(blocks, options.width, options.width, bottleneck),
    )


add_imagenet(18, (2, 2, 2, 2), bottleneck=False)
add_imagenet(34, (3, 4, 6, 3), bottleneck=False)
add_imagenet(50, (3, 4, 6, 3), bottleneck=True)
add_imagenet(101, (3, 4, 23, 3), bottleneck=True)
add_imagenet(152, (3, 8, 36, 3), bottleneck=True)
add_small(110, bottleneck=False)
add_small(164, bottleneck=True)
add(
    "wide_resnet28_10",
    "WideResNet-28-10",
    "Zagoruyko 2016, Wide Residual Networks (arXiv 1605.07146), section 2",
    WideOptions,
    lambda options: small_plan(4, 16 * options.widen, 16, bottleneck=False, dropout=options.dropout),
)
