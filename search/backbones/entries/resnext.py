"""ResNeXt and WideResNet-18: ResNets with grouped or with more channels (Xie 2017; Zagoruyko 2016)."""

from __future__ import annotations

from pydantic import Field

from search.backbones.entries.resnet import BasicOptions, BottleneckOptions, ResNetPlan, StagePlan, add, imagenet_plan
from search.registry import Options

XIE = "Xie 2017, Aggregated Residual Transformations (arXiv 1611.05431)"


class WideOptions(BasicOptions):
    """ResNet-18 with more channels."""

    widen: float = Field(
        1.5,
        gt=0,
        le=16,
        description="Multiplies the channels of every block, not the stem's; the papers have 1.5 and 2.",
    )


class SmallResNeXtOptions(Options):
    """ResNeXt-29 for small images."""

    width: int = Field(64, ge=8, le=512, description="Channels of a group in stage 1; each stage doubles them.")


def small_resnext_plan(groups: int, options: SmallResNeXtOptions) -> ResNetPlan:
    """Three stages of three bottlenecks after a 3×3 stem of 64 channels."""
    stages = (StagePlan(3, groups * options.width * 2**i, 256 * 2**i, 1 if i == 0 else 2) for i in range(3))
    return ResNetPlan(tuple(stages), 64, bottleneck=True, stem="cifar", groups=groups)


def add_resnext(depth: int, blocks: tuple[int, ...], torchvision: str | None) -> None:
    add(
        f"resnext{depth}_32x4d",
        f"ResNeXt-{depth} (32x4d)",
        f"{XIE}, section 3, table 1",
        BottleneckOptions,
        lambda options: imagenet_plan(blocks, options, bottleneck=True, groups=32, group_width=4),
        torchvision,
    )


add(
    "wide_resnet18",
    "WideResNet-18",
    "Woo 2018, CBAM (arXiv 1807.06521), table 4; Zagoruyko 2016 (arXiv 1605.07146)",
    WideOptions,
    lambda options: imagenet_plan((2, 2, 2, 2), options, bottleneck=False),
)
add_resnext(50, (3, 4, 6, 3), "resnext50_32x4d")
add_resnext(101, (3, 4, 23, 3), None)
add(
    "resnext29_8x64d",
    "ResNeXt-29 (8x64d) for small images",
    f"{XIE}, section 5.3",
    SmallResNeXtOptions,
    lambda options: small_resnext_plan(8, options),
)
