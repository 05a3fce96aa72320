"""VGG16 with BatchNorm (Simonyan 2015, arXiv 1409.1556) with torchvision's parameter names."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from search.backbones.entries.vgg import STAGES, VGGOptions, unit
from search.backbones.layers import conv2d, initialise
from search.sites import Site


class VGG(nn.Module):
    """Logits N × classes from images N × in_channels × H × W.

    Slots: `residual` after the non-linearity of every convolution (Hu 2018, section 3.3); `stage_ends`
    before each pooling.
    """

    def __init__(self, plan: VGGOptions, in_channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.convs: list[list[int]] = []  # per stage, where its convolutions are in features
        for widths in STAGES:
            self.convs.append([len(layers) + 3 * index for index in range(len(widths))])
            for width in widths:
                layers += [conv2d(unit(in_channels, width)), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                in_channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.residual = nn.ModuleList(nn.ModuleList(nn.Identity() for _ in widths) for widths in STAGES)
        self.stage_ends = nn.ModuleList(nn.Identity() for _ in STAGES)
        self.avgpool = nn.AdaptiveAvgPool2d(7 if plan.head == "vgg" else 1)
        self.classifier = vgg_head(classes, plan.dropout) if plan.head == "vgg" else nn.Linear(in_channels, classes)
        initialise(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def slots(self, site: Site) -> list[tuple[nn.Module, str]]:
        """Parents and attributes of the site's points (see BackboneInfo)."""
        if site.position == "stage_end":
            return [(self.stage_ends, str(site.stage - 1))]
        if site.position == "conv":
            return [(self.features, str(self.convs[site.stage - 1][site.block - 1]))]
        return [(self.residual[site.stage - 1], str(site.block - 1))]

    def forward(self, x: Tensor) -> Tensor:
        for convs, slots, end in zip(self.convs, self.residual, self.stage_ends, strict=True):
            for start, slot in zip(convs, cast(nn.ModuleList, slots), strict=True):
                x = slot(self.features[start : start + 3](x))
            x = self.features[convs[-1] + 3](end(x))
        return cast(Tensor, self.classifier(self.avgpool(x).flatten(1)))


def vgg_head(classes: int, dropout: float) -> nn.Sequential:
    """The paper's three fully connected layers, on a map of 512 × 7 × 7."""
    return nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(4096, classes),
    )
