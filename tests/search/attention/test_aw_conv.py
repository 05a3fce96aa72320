"""Both forms of the AW-convolution operator against torch's convolution, one sample at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from search.attention import aw_conv as operator
from search.attention import aw_samples, aw_taps
from search.attention.aw_conv import aw_conv, prefers_taps
from search.attention.aw_geometry import Geometry
from search.attention.aw_plain import plain_aw_conv


def one_by_one(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    own = scale
    for dim, size in enumerate(weight.shape, 1):
        own = own.repeat_interleave(size // own.shape[dim], dim)
    return torch.cat(
        [F.conv2d(x[n : n + 1], weight * own[n], None, stride, padding, dilation, groups) for n in range(len(x))]
    )


@st.composite
def problems(draw: st.DrawFn) -> tuple[tuple[Tensor, Tensor, Tensor], Geometry]:
    """Inputs, float64, and how to step over them."""
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    c1, c2 = (draw(st.sampled_from([1, 2, 4])) * groups for _ in range(2))
    kernel = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 3]))
    geometry = Geometry(draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.integers(1, 2)), groups)
    least = [max(1, geometry.dilation * (taps - 1) + 1 - 2 * geometry.padding) for taps in kernel]
    size = [draw(st.integers(low, low + 6)) for low in least]
    shared = [
        draw(st.sampled_from([part for part in range(1, whole + 1) if whole % part == 0]))
        for whole in (c2, c1 // groups, *kernel)
    ]
    n = draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    shapes = ((n, c1, *size), (c2, c1 // groups, *kernel), (n, *shared))
    x, weight, scale = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    return (x.requires_grad_(), weight.requires_grad_(), scale.requires_grad_()), geometry


@pytest.fixture(params=["taps, few at a time", "taps, all at once", "samples, one at a time", "samples, all at once"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way in which the operator may be carried out, where it can be."""
    kind, amount = request.param.split(", ")
    monkeypatch.setattr(
        operator, "prefers_taps", lambda x, weight, scale, geometry: kind == "taps" and _could_be_taps(scale, geometry)
    )
    for module in (aw_taps, aw_samples):
        monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 1 if "at a time" in amount else 1 << 30)
    return str(request.param)


def _could_be_taps(scale: Tensor, geometry: Geometry) -> bool:
    return geometry.groups == 1 and scale.shape[2] == 1


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(problem=problems(), keep=st.booleans())
def test_is_a_convolution_per_sample(
    problem: tuple[tuple[Tensor, Tensor, Tensor], Geometry], keep: bool, form: str
) -> None:
    inputs, geometry = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "KEEP_RATIO", 1e9 if keep else 0.0)
        got = aw_conv(*inputs, geometry)
        expected = one_by_one(*inputs, geometry)
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
        upstream = torch.randn_like(expected)
        ours = torch.autograd.grad(got, inputs, upstream)
    for one, other in zip(ours, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(plain_aw_conv(*inputs, geometry), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("stride", [1, 2])
def test_passes_gradcheck(stride: int, form: str) -> None:
    torch.manual_seed(0)
    shapes = ((2, 3, 4, 3), (2, 3, 3, 3), (2, 2, 1, 3, 3))
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    geometry = Geometry(stride, 1, 1, 1)
    assert torch.autograd.gradcheck(lambda x, weight, scale: aw_conv(x, weight, scale, geometry), inputs)


@pytest.mark.parametrize("channels", [8, 64])
def test_keeps_torchs_rules_for_operators(channels: int) -> None:
    """Schema, fake tensors and autograd registration, in both regimes."""
    x = torch.randn(2, channels, 5, 5, requires_grad=True)
    weight = torch.randn(channels, channels, 3, 3, requires_grad=True)
    scale = torch.rand(2, channels, 1, 3, 3, requires_grad=True)
    arguments = (x, weight, scale, 1, 1, 1, 1, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.attune.aw_conv.default, arguments, test_utils=checks)
    last = tuple(t.detach().to(memory_format=torch.channels_last).requires_grad_() for t in (x, weight))
    torch.library.opcheck(torch.ops.attune.aw_conv.default, (*last, *arguments[2:]), test_utils=checks)


def test_is_chosen_by_shape() -> None:
    def taps(channels: int, side: int, device: str = "cpu", q: int = 1, groups: int = 1) -> bool:
        with torch.device("meta"):
            x, weight = torch.empty(2, channels, side, side), torch.empty(channels, channels // groups, 3, 3)
            scale = torch.empty(2, channels, q, 3, 3)
        return prefers_taps(x, weight, scale, Geometry(1, 1, 1, groups))

    assert [taps(*shape) for shape in ((64, 28), (128, 28), (128, 14), (256, 14), (256, 7), (512, 7))] == [
        False,
        False,
        False,
        False,
        True,
        True,
    ]
    assert not taps(512, 7, q=2)
    assert not taps(512, 7, groups=2)


def test_products_are_kept_only_for_a_backward_pass() -> None:
    x, weight, scale = torch.randn(2, 64, 4, 4), torch.randn(64, 64, 3, 3), torch.rand(2, 64, 1, 3, 3)
    _, kept = torch.ops.attune.aw_conv(x, weight, scale, 1, 1, 1, 1, True)
    assert kept.numel() == 2 * 9 * 64 * 16
    _, kept = torch.ops.attune.aw_conv(x, weight, scale, 1, 1, 1, 1, False)
    assert kept.numel() == 0
