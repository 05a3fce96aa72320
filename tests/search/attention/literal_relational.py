"""Literal versions of the modules in which positions or channels attend to each other."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    relu,
    sigmoid,
    softmax,
)


@literal("nonlocal")
def nonlocal_block(x: Array, s: State, o: Any, p: Point) -> Array:
    source = x
    if o.pool:
        h, w = x.shape[1] // 2, x.shape[2] // 2
        source = np.stack(
            [
                np.stack([x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for j in range(w)], -1)
                for i in range(h)
            ],
            -2,
        )
    theta, phi, g = conv(x, s, "theta"), conv(source, s, "phi"), conv(source, s, "g")
    y = np.zeros_like(theta)
    keys, values = phi.reshape(len(phi), -1), g.reshape(len(g), -1)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            f = np.array([theta[:, i, j] @ key for key in keys.T])
            if o.affinity == "dot_product":
                a = f / len(f)
            else:
                a = softmax(f / math.sqrt(len(theta)) if o.scale else f)
            y[:, i, j] = sum(a[k] * values[:, k] for k in range(len(a)))
    return x + batch_norm(conv(y, s, "out"), s, "norm")


def position_sum(x: Array, s: State, prefix: str = "") -> Array:
    b, c, d = (conv(x, s, prefix + name).reshape(-1, x.shape[1] * x.shape[2]) for name in ("query", "key", "value"))
    out = np.zeros_like(d)
    for j in range(d.shape[1]):
        weights = softmax(np.array([b[:, j] @ c[:, i] for i in range(d.shape[1])]))
        for i in range(d.shape[1]):
            out[:, j] += weights[i] * d[:, i]
    return s[prefix + "alpha"] * out.reshape(x.shape)


def channel_sum(x: Array, s: State, energy: str, prefix: str = "") -> Array:
    out = np.zeros_like(x)
    for j in range(len(x)):
        products = np.array([(x[i] * x[j]).sum() for i in range(len(x))])
        weights = softmax(products if energy == "product" else products.max() - products)
        out[j] = sum(weights[i] * x[i] for i in range(len(x)))
    return s[prefix + "beta"] * out


@literal("danet_position")
def danet_position(x: Array, s: State, o: Any, p: Point) -> Array:
    return position_sum(x, s) + x


@literal("danet_channel")
def danet_channel(x: Array, s: State, o: Any, p: Point) -> Array:
    return channel_sum(x, s, o.energy) + x


@literal("danet_dual")
def danet_dual(x: Array, s: State, o: Any, p: Point) -> Array:
    return position_sum(x, s, "position.") + channel_sum(x, s, o.energy, "channel.") + x


@literal("gc")
def gc(x: Array, s: State, o: Any, p: Point) -> Array:
    flat = x.reshape(len(x), -1)
    a = np.full(flat.shape[1], 1 / flat.shape[1])
    if o.pooling == "attention":
        a = softmax(np.array([s["mask.weight"][0, :, 0, 0] @ column + s["mask.bias"][0] for column in flat.T]))
    context = sum(a[j] * flat[:, j] for j in range(len(a)))
    t = linear(context, s, "transform.0")
    t = (t - t.mean()) / np.sqrt(t.var() + 1e-5) * s["transform.1.weight"] + s["transform.1.bias"]
    t = linear(relu(t), s, "transform.3")[:, None, None]
    return x + t if o.fusion == "add" else x * sigmoid(t)


@literal("a2")
def a2(x: Array, s: State, o: Any, p: Point) -> Array:
    a, b, v = (conv(x, s, name).reshape(-1, x.shape[1] * x.shape[2]) for name in ("values", "gather", "distribute"))
    descriptors = []
    for row in b:
        weights = softmax(row)  # over the positions
        descriptors.append(sum(weights[i] * a[:, i] for i in range(len(weights))))
    z = np.zeros_like(a)
    for i in range(z.shape[1]):
        weights = softmax(v[:, i])  # over the descriptors
        z[:, i] = sum(weights[k] * descriptors[k] for k in range(len(weights)))
    return x + conv(z.reshape(-1, *x.shape[1:]), s, "out")


@literal("sparse_attention")
def sparse_attention(x: Array, s: State, o: Any, p: Point) -> Array:
    length = x.shape[1] * x.shape[2]
    local, stride = (min(span or x.shape[2], length) for span in (o.local, o.stride))
    z = sparse_step(x.reshape(len(x), 1, length), s, "near", o.heads, lambda i, j: i // local == j // local)
    y = sparse_step(z, s, "far", o.heads, lambda i, j: i % stride == j % stride)
    return y.reshape(x.shape)


def sparse_step(x: Array, s: State, name: str, heads: int, meets: Callable[[int, int], bool]) -> Array:
    qkv = conv(x.transpose(0, 2, 1), s, f"{name}.qkv")[:, :, 0]
    inner = len(qkv) // 3
    d = inner // heads
    q, k, v = qkv[:inner], qkv[inner : 2 * inner], qkv[2 * inner :]
    out = np.zeros((inner, x.shape[2]))
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        for i in range(x.shape[2]):
            others = [j for j in range(x.shape[2]) if meets(i, j)]
            weights = softmax(np.array([q[part, i] @ k[part, j] for j in others]) / math.sqrt(d))
            out[part, i] = sum(w * v[part, j] for w, j in zip(weights, others, strict=True))
    return x + conv(out[:, :, None], s, f"{name}.out").transpose(0, 2, 1)
