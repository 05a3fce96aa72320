"""Gather-excite: gather each channel over an extent, excite every position with a gate made of it.

Hu, Shen, Albanie, Sun, Vedaldi 2018, "Gather-Excite" (arXiv 1810.12348), section 3, and the authors'
models (hujie-frank/GENet, models/RN50-GEP*.prototxt):

    y = x · σ(upsample(f(gather(x)))),   upsampling to H × W by the nearest value

    variant   gather                                                           f
    minus θ⁻  mean over a window of 2e − 1, stride e (whole map: global)       identity
    theta θ   log₂ e depthwise 3×3 convolutions of stride 2, each with BN,     identity
              ReLU between them (whole map: one depthwise H × W, BN)
    plus θ⁺   as θ, with a ReLU at the end                                     1×1 C → C/16, ReLU, 1×1 → C

The last two have no bias in the gathering convolutions and biases in the 1×1 ones.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def _depthwise(channels: int, kernel: int | tuple[int, int], stride: int = 1, padding: int = 0) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def _gather(channels: int, size: tuple[int, int], extent: int | str) -> list[nn.Module]:
    if isinstance(extent, str):
        return _depthwise(channels, size)
    layers: list[nn.Module] = []
    for _ in range(extent.bit_length() - 1):
        if layers:
            layers.append(nn.ReLU())
        layers += _depthwise(channels, 3, stride=2, padding=1)
    return layers


class GatherExcite(nn.Module):
    """N × C × H × W → the same shape, every value multiplied by a gate in (0, 1).

    size: height and width of the map; what θ and θ⁺ gather globally has one weight for each position.
    variant: "minus", "theta", "plus". extent: 2, 4, 8 (pixels between gathered values) or "global".
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        variant: str = "minus",
        extent: int | str = "global",
        reduction: int = 16,
    ) -> None:
        super().__init__()
        self.extent = extent
        self.gather = None if variant == "minus" else nn.Sequential(*_gather(channels, size, extent))
        self.mlp = None
        if variant == "plus":
            hidden = channels // reduction
            self.mlp = nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        gathered: Tensor = self._pool(x) if self.gather is None else self.gather(x)
        if self.mlp is not None:
            gathered = self.mlp(gathered)
        if gathered.shape[-2:] != (1, 1):
            gathered = F.interpolate(gathered, size=x.shape[-2:], mode="nearest")
        return x * gathered.sigmoid()

    def _pool(self, x: Tensor) -> Tensor:
        if isinstance(self.extent, str):
            return x.mean((2, 3), keepdim=True)
        window = 2 * self.extent - 1
        return F.avg_pool2d(x, window, self.extent, padding=window // 2, count_include_pad=False)
