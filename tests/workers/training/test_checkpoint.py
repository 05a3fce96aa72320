"""States survive the way into a file and back: every bit, and the layout that fused optimisers rely on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from workers.training.checkpoint import decode, decode_weights, encode, encode_weights
from workers.training.errors import StateError


def same(one: Any, other: Any) -> bool:
    """Whether two states are one: types, values, bits of tensors, strides."""
    if isinstance(one, Tensor):
        equal = torch.equal(one.view(torch.uint8) if one.ndim else one, other.view(torch.uint8) if one.ndim else other)
        return isinstance(other, Tensor) and equal and one.dtype == other.dtype and one.stride() == other.stride()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def test_every_kind_of_value_comes_back() -> None:
    shared = torch.arange(4.0)
    state = {
        "text": "ü\n\0",
        "flags": [True, None, 3, 2**70],
        "numbers": [0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan],
        "betas": (0.9, (0.999,)),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 7: {}}, "$odd": {"$tensor": "not one"}},
        "dtypes": [
            torch.zeros(2, dtype=d) for d in (torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8)
        ],
        "nothing": torch.empty(0, 3),
        "a.b": torch.tensor([1.0]),
        "a": {"b": torch.tensor([2.0])},
        "twice": [shared, shared],
        "part": torch.arange(10)[3:5],
    }
    back, about = decode(encode(state, {"epochs": [1, 2]}))
    assert same(back, state)
    assert about == {"epochs": [1, 2]}


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 1, 5, 5), (1, 3, 1, 1), (6, 3, 1, 1)])
def test_the_layout_of_tensors_comes_back(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape).to(memory_format=torch.channels_last)
    back, _ = decode(encode({"weight": weight, "odd": weight.transpose(0, 1)}, {}))
    assert back["weight"].stride() == weight.stride()
    assert torch.equal(back["weight"], weight)
    assert torch.equal(back["odd"], weight.transpose(0, 1))


def test_what_a_file_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match=r"optimizer\.sampler: object"):
        encode({"optimizer": {"sampler": object()}}, {})
    with pytest.raises(TypeError, match=r"graph: its layout is torch\.sparse_coo"):
        encode({"graph": torch.eye(3).to_sparse()}, {})


def test_a_file_that_is_none_is_refused() -> None:
    good = encode({"weight": torch.randn(50)}, {})
    foreign = safetensors.torch.save({"weight": torch.randn(50)})
    newer = safetensors.torch.save({}, metadata={"attune": '{"format":2}'})
    for content in (b"", b"\xff" * 100, good[:7], good[: len(good) // 2], good[:-1], good + b"x", foreign, newer):
        with pytest.raises(StateError):
            decode(content)


def test_weights_are_a_plain_file_of_safetensors() -> None:
    weights = {"conv.weight": torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last), "n": torch.tensor(3)}
    content = encode_weights(weights, {"result": {"top1": 0.5}})
    loaded = safetensors.torch.load(content)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    back, about = decode_weights(content)
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert about == {"result": {"top1": 0.5}}


def test_one_bit_anywhere_in_weights_is_noticed() -> None:
    content = encode_weights({"weight": torch.randn(20), "bias": torch.randn(3)}, {"result": {"top1": 0.5}})
    for position in range(8, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        try:
            back, about = decode_weights(bytes(damaged))
        except StateError:
            continue
        # padding of the header holds nothing
        assert content[position : position + 1] == b" "
        assert about == {"result": {"top1": 0.5}}
        assert back.keys() == {"weight", "bias"}
