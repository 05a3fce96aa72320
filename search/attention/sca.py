"""SCA-CNN: a softmax over channels and one over positions, each scaled back to a mean of 1.

Chen, Zhang, Xiao, Nie, Shao, Liu, Chua 2017, "SCA-CNN" (arXiv 1611.05594), sections 3.2, 3.3, equations 4 to
11, and the authors' code (zjuchenlong/sca-cnn.cvpr17, sca_resnet_branch2b.py). Without the caption's state:

    β = softmax_c(u_c · tanh(w_c GAP(x)_c + b_c) + c_c),   x′ = C β x              over C channels
    α = softmax_l(u_s · tanh(W_s x′_l + b_s) + c_s),       y  = L α x′             over L = H · W positions

w_c, b_c, u_c, b_s, u_s: k values; W_s: k × C; k = 512. The factors C and L are the code's. That is the
order C-S; S-C applies the same two to the input in the other order.
"""

from __future__ import annotations

from torch import Tensor, nn

from search.attention.layers import per_channel


class SCA(nn.Module):
    """N × C × H × W → the same shape. hidden: k. order: "channel_spatial" (C-S) or "spatial_channel" (S-C)."""

    def __init__(self, channels: int, hidden: int = 512, order: str = "channel_spatial") -> None:
        super().__init__()
        self.order = order
        self.channel = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.spatial = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.Tanh(), nn.Conv2d(hidden, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.order == "channel_spatial":
            return self._weigh_positions(self._weigh_channels(x))
        return self._weigh_channels(self._weigh_positions(x))

    def _weigh_channels(self, x: Tensor) -> Tensor:
        scores: Tensor = self.channel(x.mean((2, 3))[:, :, None])[:, :, 0]  # N × C
        return x * per_channel(scores.softmax(1) * x.shape[1])

    def _weigh_positions(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        scores: Tensor = self.spatial(x).flatten(1)  # N × L
        return x * (scores.softmax(1) * (h * w)).reshape(n, 1, h, w)
