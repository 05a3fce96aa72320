"""Layers as their definitions say: numpy, float64, loops over positions; and the list of literal modules.

Nothing here knows how the modules compute. Parameters are taken from their state dict by name; batch norm is that of
eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.sites import Point

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
    t: Array,
    s: State,
    name: str,
    padding: int = 0,
    dilation: int = 1,
    stride: int = 1,
    groups: int = 1,
) -> Array:
    """C × H × W, cross-correlation with zero padding."""
    w = s[f"{name}.weight"]
    if w.ndim == 3:
        w = w[..., None]
    outputs, per_group, kh, kw = w.shape
    padded = np.zeros((t.shape[0], t.shape[1] + 2 * padding, t.shape[2] + 2 * padding))
    padded[:, padding : padding + t.shape[1], padding : padding + t.shape[2]] = t
    height = (padded.shape[1] - dilation * (kh - 1) - 1) // stride + 1
    width = (padded.shape[2] - dilation * (kw - 1) - 1) // stride + 1
    out = np.zeros((outputs, height, width))
    for y in range(height):
        for x in range(width):
            patch = padded[
                :,
                y * stride : y * stride + dilation * (kh - 1) + 1 : dilation,
                x * stride : x * stride + dilation * (kw - 1) + 1 : dilation,
            ]
            for o in range(outputs):
                first = o // (outputs // groups) * per_group
                out[o, y, x] = (patch[first : first + per_group] * w[o]).sum()
    bias = s.get(f"{name}.bias")
    return out if bias is None else out + bias[:, None, None]


def mean_of(x: Array) -> Array:
    return np.array([channel.mean() for channel in x])


def mlp(t: Array, s: State, name: str) -> Array:
    return linear(relu(linear(t, s, f"{name}.0")), s, f"{name}.2")
