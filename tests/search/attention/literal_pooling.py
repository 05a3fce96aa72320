"""Literal versions of the modules that gate by what pooling says."""

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
    linear,
    literal,
    mean_of,
    mlp,
    relu,
    sigmoid,
    softmax,
)


@literal("se")
def se(x: Array, s: State, o: Any, p: Point) -> Array:
    return x * sigmoid(mlp(mean_of(x), s, "mlp"))[:, None, None]


@literal("cbam")
def cbam(x: Array, s: State, o: Any, p: Point) -> Array:
    def channel(t: Array) -> Array:
        logits = np.zeros(len(t))
        if o.pool in ("both", "avg"):
            logits += mlp(mean_of(t), s, "channel.mlp")
        if o.pool in ("both", "max"):
            logits += mlp(np.array([c.max() for c in t]), s, "channel.mlp")
        return sigmoid(logits)[:, None, None]

    def spatial(t: Array) -> Array:
        described = np.stack([t.max(0), t.mean(0)]) if o.spatial == "pooling" else conv(t, s, "spatial.squeeze")
        return sigmoid(batch_norm(conv(described, s, "spatial.conv", o.kernel // 2), s, "spatial.norm"))

    if o.branches == "channel":
        return x * channel(x)
    if o.branches == "spatial":
        return x * spatial(x)
    if o.order == "parallel":
        return x * channel(x) * spatial(x)
    for gate in (channel, spatial) if o.order == "channel_spatial" else (spatial, channel):
        x = x * gate(x)
    return x


@literal("bam")
def bam(x: Array, s: State, o: Any, p: Point) -> Array:
    maps = []
    if o.branches != "spatial":
        hidden = relu(batch_norm(linear(mean_of(x), s, "channel.0"), s, "channel.1"))
        maps.append(linear(hidden, s, "channel.3")[:, None, None] * np.ones_like(x))
    if o.branches != "channel":
        t = relu(batch_norm(conv(x, s, "spatial.0"), s, "spatial.1"))
        t = relu(batch_norm(conv(t, s, "spatial.3", o.dilation, o.dilation), s, "spatial.4"))
        t = relu(batch_norm(conv(t, s, "spatial.6", o.dilation, o.dilation), s, "spatial.7"))
        maps.append(conv(t, s, "spatial.9") * np.ones_like(x))
    joined = {"sum": sum, "product": math.prod, "max": np.maximum.reduce}[o.combine](maps)
    return x + x * sigmoid(joined)


@literal("eca")
def eca(x: Array, s: State, o: Any, p: Point) -> Array:
    k = o.kernel
    if k is None:
        t = math.floor(abs(math.log2(p.channels) / 2 + 1 / 2))
        k = max(t if t % 2 == 1 else t + 1, 3)
    w, means = s["conv.weight"].ravel(), mean_of(x)
    assert len(w) == k
    y = x.copy()
    for c in range(len(x)):
        near = [(c + i - k // 2, w[i]) for i in range(k)]
        y[c] *= sigmoid(np.array(sum(v * means[j] for j, v in near if 0 <= j < len(x))))
    return y


@literal("gather_excite")
def gather_excite(x: Array, s: State, o: Any, p: Point) -> Array:
    c, h, w = x.shape
    if o.variant == "minus":
        g = mean_of(x)[:, None, None] if o.extent == "global" else window_means(x, o.extent)
    elif o.extent == "global":
        g = batch_norm((s["gather.0.weight"][:, 0] * x).sum((1, 2))[:, None, None], s, "gather.1")
    else:
        g = x
        for i in range(int(math.log2(o.extent))):
            g = relu(g) if i else g
            g = batch_norm(conv(g, s, f"gather.{3 * i}", 1, stride=2, groups=c), s, f"gather.{3 * i + 1}")
    if o.variant == "plus":
        g = conv(relu(conv(relu(g), s, "mlp.1")), s, "mlp.3")
    y = x.copy()
    for i in range(h):
        for j in range(w):
            y[:, i, j] *= sigmoid(g[:, i * g.shape[1] // h, j * g.shape[2] // w])
    return y


def window_means(x: Array, extent: int) -> Array:
    """Means over (2e − 1)² windows around every e-th position, of what lies on the map."""
    _, h, w = x.shape
    rows, columns = range(0, h, extent), range(0, w, extent)
    near = extent - 1
    return np.stack(
        [
            np.stack(
                [x[:, max(i - near, 0) : i + near + 1, max(j - near, 0) : j + near + 1].mean((1, 2)) for j in columns],
                -1,
            )
            for i in rows
        ],
        -2,
    )


@literal("gala")
def gala(x: Array, s: State, o: Any, p: Point) -> Array:
    g = mlp(mean_of(x), s, "mlp")[:, None, None]
    where = conv(relu(conv(x, s, "local.0")), s, "local.2")
    match o.interaction:
        case "additive":
            return x * np.tanh(g + where)
        case "multiplicative":
            return x * np.tanh(g * where)
    return x * np.tanh(s["additive"] * (g + where) + s["multiplicative"] * (g * where))


@literal("sca")
def sca(x: Array, s: State, o: Any, p: Point) -> Array:
    def channels(t: Array) -> Array:
        w, b, u = s["channel.0.weight"][:, 0], s["channel.0.bias"], s["channel.2.weight"][0]
        scores = [u @ np.tanh(w * m + b) + s["channel.2.bias"][0] for m in mean_of(t)]
        return t * (softmax(np.array(scores)) * len(t))[:, None, None]

    def positions(t: Array) -> Array:
        w, b, u = s["spatial.0.weight"][:, :, 0, 0], s["spatial.0.bias"], s["spatial.2.weight"][0, :, 0, 0]
        flat = t.reshape(len(t), -1)
        scores = [u @ np.tanh(w @ column + b) + s["spatial.2.bias"][0] for column in flat.T]
        return (flat * softmax(np.array(scores)) * flat.shape[1]).reshape(t.shape)

    return positions(channels(x)) if o.order == "channel_spatial" else channels(positions(x))
