"""Non-local block: every position attends to every other.

Wang, Girshick, Gupta, He 2018, "Non-local Neural Networks" (arXiv 1711.07971), sections 3.2, 3.3, equations
1 to 6, and the authors' code (facebookresearch/video-nonlocal-net, lib/models/nonlocal_helper.py):

    z = BN(W_z y) + x,   y_i = Σ_j a_ij g_j
    embedded Gaussian: a_i = softmax_j(θ_iᵀ φ_j)          dot product: a_ij = θ_iᵀ φ_j / L′

θ, φ, g: 1×1 convolutions C → C/2 with biases; W_z: 1×1 C/2 → C; L = H · W positions i, L′ positions j. With
`pool`, φ and g are of the 2×2 max-pooled map (section 3.3), so L′ = ⌊H/2⌋ · ⌊W/2⌋. `scale` divides θᵀφ by
√(C/2), as the code does and the paper's equations do not. Weights start normal with s.d. 0.01; the weight of
BN starts at 0, so that the block starts as the identity. 2C²L + CL² multiply–adds without pooling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NonLocal(nn.Module):
    """N × C × H × W → the same shape. affinity: "embedded_gaussian" or "dot_product"."""

    def __init__(
        self,
        channels: int,
        affinity: str = "embedded_gaussian",
        pool: bool = False,
        scale: bool = False,
        bottleneck: int = 2,
    ) -> None:
        super().__init__()
        inner = channels // bottleneck
        self.affinity = affinity
        self.pool = pool
        self.factor = inner**-0.5 if scale else 1.0
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        for conv in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        pooled = F.max_pool2d(x, 2) if self.pool else x
        query = self.theta(x).flatten(2).transpose(1, 2)  # N × L × C/2
        key = self.phi(pooled).flatten(2).transpose(1, 2)  # N × L′ × C/2
        value = self.g(pooled).flatten(2).transpose(1, 2)
        if self.affinity == "dot_product":
            y = torch.bmm(query, torch.bmm(key.transpose(1, 2), value)) / key.shape[1]
        else:
            y = F.scaled_dot_product_attention(query, key, value, scale=self.factor)
        z: Tensor = self.norm(self.out(y.transpose(1, 2).reshape(n, -1, h, w)))
        return x + z
