"""Every module against a slow, literal version of its formula: numpy, float64, loops over samples and positions.

Nothing here knows how the modules compute; parameters are taken from their state dict by name. Batch norm is that
of eval mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from search.attention import ATTENTION
from search.sites import ConvGeometry, Point

Array = NDArray[np.float64]
State = dict[str, Array]
Literal = Callable[[Array, State, Any, Point], Array]
"""(one sample C × H × W, parameters, options, point) → one sample."""

LITERALS: dict[str, Literal] = {}


def literal(name: str) -> Callable[[Literal], Literal]:
    def add(function: Literal) -> Literal:
        LITERALS[name] = function
        return function
    return add


def sigmoid(t: Array) -> Array:
    return 1 / (1 + np.exp(-t))


def relu(t: Array) -> Array:
    return np.where(t > 0, t, 0.0)


def softmax(t: Array) -> Array:
    """Over the last axis."""
    e = np.exp(t - t.max(-1, keepdims=True))
    total: Array = e / e.sum(-1, keepdims=True)
    return total


def batch_norm(t: Array, s: State, name: str) -> Array:
    """Channels first."""
    shape = (-1,) + (1,) * (t.ndim - 1)
    mean, var, w, b = (s[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias"))
    return (t - mean) / np.sqrt(var + 1e-5) * w + b


def linear(t: Array, s: State, name: str) -> Array:
    w, b = s[f"{name}.weight"], s[f"{name}.bias"]
    return np.array([sum(w[o, i] * t[i] for i in range(len(t))) + b[o] for o in range(len(w))])


def conv(
    t: Array, s: State, name: str, padding: int = 0, dilation: int = 1, stride: int = 1, groups: int = 1,
) -> Array:
    """C × H × W, cross-correlation with zero padding."""
    w = s[f"{name}.weight"]
    if w.ndim == 3:
        w = w[..., None]
    outputs, per_group, kh, kw = w.shape
    padded = np.zeros((t.shape[0], t.shape[1] + 2 * padding, t.shape[2] + 2 * padding))
    padded[:, padding:padding + t.shape[1], padding:padding + t.shape[2]] = t
    height = (padded.shape[1] - dilation * (kh - 1) - 1) // stride + 1
    width = (padded.shape[2] - dilation * (kw - 1) - 1) // stride + 1
    out = np.zeros((outputs, height, width))
    for y in range(height):
        for x in range(width):
            patch = padded[:, y * stride:y * stride + dilation * (kh - 1) + 1:dilation,
                           x * stride:x * stride + dilation * (kw - 1) + 1:dilation]
            for o in range(outputs):
                first = o // (outputs // groups) * per_group
                out[o, y, x] = (patch[first:first + per_group] * w[o]).sum()
    bias = s.get(f"{name}.bias")
    return out if bias is None else out + bias[:, None, None]


def mean_of(x: Array) -> Array:
    return np.array([channel.mean() for channel in x])


def mlp(t: Array, s: State, name: str) -> Array:
    return linear(relu(linear(t, s, f"{name}.0")), s, f"{name}.2")


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
    return np.stack([np.stack([
        x[:, max(i - near, 0):i + near + 1, max(j - near, 0):j + near + 1].mean((1, 2)) for j in columns], -1)
        for i in rows], -2)


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


@literal("nonlocal")
def nonlocal_block(x: Array, s: State, o: Any, p: Point) -> Array:
    source = x
    if o.pool:
        h, w = x.shape[1] // 2, x.shape[2] // 2
        source = np.stack([np.stack([
            x[:, 2 * i:2 * i + 2, 2 * j:2 * j + 2].max((1, 2)) for j in range(w)], -1) for i in range(h)], -2)
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
    q, k, v = qkv[:inner], qkv[inner:2 * inner], qkv[2 * inner:]
    out = np.zeros((inner, x.shape[2]))
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        for i in range(x.shape[2]):
            others = [j for j in range(x.shape[2]) if meets(i, j)]
            weights = softmax(np.array([q[part, i] @ k[part, j] for j in others]) / math.sqrt(d))
            out[part, i] = sum(w * v[part, j] for w, j in zip(weights, others, strict=True))
    return x + conv(out[:, :, None], s, f"{name}.out").transpose(0, 2, 1)


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
    return np.stack([np.stack([
        t[:, max(i - 1, 0):i + 2, max(j - 1, 0):j + 2].max((1, 2)) for j in range(0, w, 2)], -1)
        for i in range(0, h, 2)], -2)


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
        q, k, v = (qkv[start + head * d:start + (head + 1) * d]
                   for start, d in ((0, dk // o.heads), (dk, dk // o.heads), (2 * dk, dv // o.heads)))
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


def compare(case: Any, point: Point) -> None:
    module = case.trained(point).double()
    x = torch.randn(2, *point.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        got = module(x).numpy()
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    expected = np.stack([LITERALS[case.info.name](sample, state, case.options, point) for sample in x.numpy()])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


def test_every_module_has_a_literal_version() -> None:
    # AW-convolution's is in test_aw.py
    assert set(ATTENTION.names()) <= set(LITERALS) | {"aw"}


def test_equals_the_formula(case: Any) -> None:
    if case.info.name not in LITERALS:
        pytest.skip("compared in its own file")
    compare(case, Point(32, 5, 6, ConvGeometry(32, 40, 3, padding=1)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 2), (1, 9)])
def test_equals_the_formula_on_other_maps(default_case: Any, height: int, width: int) -> None:
    if default_case.info.name not in LITERALS:
        pytest.skip("compared in its own file")
    compare(default_case, Point(32, height, width, ConvGeometry(32, 40, 3, padding=1)))


@pytest.mark.parametrize("conv", [
    ConvGeometry(32, 40, 3, stride=2, padding=1), ConvGeometry(32, 40, 3, padding=2, dilation=2, bias=True),
    ConvGeometry(32, 40, 1, groups=4), ConvGeometry(32, 64, 7, stride=2, padding=3),
], ids=["stride", "dilation", "pointwise-groups", "stem"])
def test_augmented_convolution_replaces_any_convolution(default_case: Any, conv: ConvGeometry) -> None:
    if default_case.info.name == "augmented_conv":
        compare(default_case, Point(32, 7, 6, conv))
