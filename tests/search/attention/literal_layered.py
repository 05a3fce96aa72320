"""Literal versions of residual attention and of the attention-augmented convolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from search.sites import Point
from tests.search.attention.literal_layers import (
    Array,
    State,
    batch_norm,
    conv,
    literal,
    relu,
    sigmoid,
    softmax,
)


@literal("residual_attention")
def residual_attention(x: Array, s: State, o: Any, p: Point) -> Array:
    def activated(t: Array, name: str, index: int, padding: int = 0) -> Array:
        return conv(relu(batch_norm(t, s, f"{name}.{index}")), s, f"{name}.{index + 2}", padding)

    def unit(t: Array, name: str) -> Array:
        b = f"{name}.branch"
        return t + activated(activated(activated(t, b, 0), b, 3, 1), b, 6)

    def hourglass(t: Array, name: str, depth: int) -> Array:
        small = unit(pooled(t), f"{name}.down")
        if depth > 1:
            small = hourglass(small, f"{name}.inner", depth - 1) + unit(small, f"{name}.skip")
        return enlarged(unit(small, f"{name}.up"), t.shape[1], t.shape[2])

    m = hourglass(x, "hourglass", o.depth)
    m = activated(activated(m, "linear", 0), "linear", 3)
    match o.gate:
        case "mixed":
            m = sigmoid(m)
        case "channel":
            m = m / np.sqrt((m * m).sum(0, keepdims=True))
        case "spatial":
            m = np.stack([sigmoid((c - c.mean()) / np.sqrt(c.var() + 1e-5)) for c in m])
    return (1 + m) * x


def pooled(t: Array) -> Array:
    """Maxima of 3 × 3 around every second position."""
    _, h, w = t.shape
    return np.stack(
        [
            np.stack([t[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max((1, 2)) for j in range(0, w, 2)], -1)
            for i in range(0, h, 2)
        ],
        -2,
    )


def enlarged(t: Array, height: int, width: int) -> Array:
    """Bilinear, the corners of both maps in the same place."""
    out = np.zeros((len(t), height, width))
    for i in range(height):
        for j in range(width):
            y = i * (t.shape[1] - 1) / (height - 1) if height > 1 else 0.0
            x = j * (t.shape[2] - 1) / (width - 1) if width > 1 else 0.0
            for a in range(t.shape[1]):
                for b in range(t.shape[2]):
                    out[:, i, j] += max(0.0, 1 - abs(y - a)) * max(0.0, 1 - abs(x - b)) * t[:, a, b]
    return out


@literal("augmented_conv")
def augmented_conv(x: Array, s: State, o: Any, p: Point) -> Array:
    c = p.conv
    assert c is not None
    plain = conv(x, s, "conv", c.padding, c.dilation, c.stride, c.groups)
    dv = c.out_channels - len(plain)
    qkv = conv(x, s, "qkv", stride=c.stride)
    dk = (len(qkv) - dv) // 2
    assert dk // o.heads >= o.min_key
    _, h, w = qkv.shape
    out = np.zeros((dv, h, w))
    places = [(y, z) for y in range(h) for z in range(w)]
    for head in range(o.heads):
        q, k, v = (
            qkv[start + head * d : start + (head + 1) * d]
            for start, d in ((0, dk // o.heads), (dk, dk // o.heads), (2 * dk, dv // o.heads))
        )
        for iy, ix in places:
            logits = []
            for jy, jx in places:
                logit = q[:, iy, ix] @ k[:, jy, jx]
                if o.relative:
                    logit += q[:, iy, ix] @ (s["rows"][jy - iy + h - 1] + s["columns"][jx - ix + w - 1])
                logits.append(logit / math.sqrt(dk // o.heads))
            weights = softmax(np.array(logits))
            part = slice(head * dv // o.heads, (head + 1) * dv // o.heads)
            out[part, iy, ix] = sum(a * v[:, jy, jx] for a, (jy, jx) in zip(weights, places, strict=True))
    return np.concatenate([plain, conv(out, s, "out")])
