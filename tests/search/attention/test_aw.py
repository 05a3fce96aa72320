"""AW-convolution against the formula of its paper, written out sample by sample and tap by tap."""

from __future__ import annotations

import itertools
import warnings
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from search.attention.aw import AWConv2d
from search.attention.entries.convolutional import AW, AWOptions
from search.sites import ConvGeometry, Point

VARIANTS: list[tuple[ConvGeometry, dict[str, Any]]] = [
    (ConvGeometry(8, 6, 3, padding=1), {}),
    (ConvGeometry(8, 6, 3, padding=1), {"form": "scale"}),
    (ConvGeometry(8, 6, 3, padding=1), {"r_c1": 4}),
    (ConvGeometry(8, 6, 3, padding=1), {"r_c1": 1, "r_c2": 6}),
    (ConvGeometry(8, 6, 3, padding=1), {"r_c2": 3, "r_hw": 3}),
    (ConvGeometry(8, 6, 3, padding=1), {"r_hw": 3, "r_c1": 8}),
    (ConvGeometry(8, 6, 4, padding=1), {"r_hw": 2, "r_c2": 2}),
    (ConvGeometry(8, 6, 3, stride=2, padding=1, bias=True), {"hidden": "out"}),
    (ConvGeometry(8, 6, 1), {}),
    (ConvGeometry(8, 6, 1, stride=2), {"r_c1": 2}),
    (ConvGeometry(8, 4, 3, padding=2, dilation=2, groups=4), {}),
    (ConvGeometry(8, 8, 3, padding=1, groups=8), {"reduction": 4}),
]


def literal(module: AWConv2d, x: Tensor, options: dict[str, Any]) -> Tensor:
    """Equations 5 to 8 of the paper, every sample with weights of its own, as sums over loops."""
    n, c1, height, width = x.shape
    c2, seen, h, w = module.weight.shape
    r_c1 = seen if options.get("r_c1", "C1") == "C1" else options["r_c1"]
    r_c2, r_hw = options.get("r_c2", 1), options.get("r_hw", 1)
    a = h // r_hw
    rows, columns = ([slice(i * side // a, -(-(i + 1) * side // a)) for i in range(a)] for side in (height, width))
    a0 = torch.stack([torch.stack([x[:, :, i, j].mean((2, 3)) for j in columns], -1) for i in rows], -2)
    hidden, numbers = cast(Any, module.squeeze), cast(Any, module.excite)
    a1 = hidden[1](torch.einsum("oc,ncij->noij", hidden[0].weight[:, :, 0, 0], a0)).clamp(min=0)
    a2 = 1 / (1 + torch.exp(-numbers[1](torch.einsum("oc,ncij->noij", numbers[0].weight[:, :, 0, 0], a1))))
    per_group, (stride, padding, dilation, _) = c2 // module.groups, module.geometry
    padded = x.new_zeros(n, c1, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    size = [(length - dilation * (h - 1) - 1) // stride + 1 for length in padded.shape[2:]]
    out = x.new_zeros(n, c2, *size)
    for p in range(c2):
        for o in range(seen):
            for j in range(h):
                for k in range(w):
                    number = a2[:, (p // r_c2) * (seen // r_c1) + o // r_c1, j // r_hw, k // r_hw]
                    own = (number if options.get("form") == "scale" else 1 + number) * module.weight[p, o, j, k]
                    read = padded[:, (p // per_group) * seen + o, j * dilation :, k * dilation :][:, ::stride, ::stride]
                    out[:, p] = out[:, p] + own[:, None, None] * read[:, : size[0], : size[1]]
    return out if module.bias is None else out + module.bias[:, None, None]


def drawn(conv: ConvGeometry, options: dict[str, Any], height: int = 6, width: int = 5) -> tuple[AWConv2d, Tensor]:
    torch.manual_seed(0)
    module = AWConv2d(conv, **{"reduction": 2, **options}).double()
    for layer in (module.squeeze[1], module.excite[1]):
        assert isinstance(layer, torch.nn.BatchNorm2d)
        torch.nn.init.uniform_(layer.weight, 0.5, 2)
        torch.nn.init.uniform_(layer.bias, -1, 1)
    return module, torch.randn(3, conv.in_channels, height, width, dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("conv", "options"), VARIANTS)
def test_is_the_papers_formula_with_its_gradients(conv: ConvGeometry, options: dict[str, Any], training: bool) -> None:
    module, x = drawn(conv, options)
    module.train(training)
    x.requires_grad_()
    wanted = [x, *module.parameters()]
    expected, got = literal(module, x, options), module(x)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(got, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("conv", "options"), VARIANTS)
def test_exports_without_an_operator_of_its_own(conv: ConvGeometry, options: dict[str, Any]) -> None:
    module, x = drawn(conv, options)
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own
        batch = {0: torch.export.Dim("batch", min=2, max=64)}
        program = torch.export.export(module, (x,), dynamic_shapes={"x": batch})
    assert not [node for node in program.graph.nodes if "attune" in str(node.target)]
    more = torch.randn(5, *x.shape[1:], dtype=x.dtype)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(more), module(more), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("conv", "options"), VARIANTS)
def test_counts_as_the_plain_convolution_and_two_pointwise_ones(conv: ConvGeometry, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        module = AWConv2d(conv, **{"reduction": 2, **options}).eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            y = module(torch.empty(2, conv.in_channels, 6, 5))
    p, q, size = module.map_shape
    plain = y.numel() * conv.in_channels // conv.groups * conv.kernel_size**2
    hidden = (conv.out_channels if options.get("hidden") == "out" else conv.in_channels) // options.get("reduction", 2)
    pointwise = 2 * size**2 * hidden * (conv.in_channels + p * q)
    assert counter.get_total_flops() == 2 * (plain + pointwise)


def test_parameters_are_those_of_the_published_networks() -> None:
    def added(conv: ConvGeometry, **options: Any) -> int:
        with torch.device("meta"):
            module = AWConv2d(conv, **options)
        return sum(p.numel() for p in module.parameters()) - module.weight.numel()

    resnet50 = zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)
    total = 25_557_032 + sum(blocks * added(ConvGeometry(c, c, 3, padding=1)) for c, blocks in resnet50)
    assert round(total / 1e6, 4) == 25.7222
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    pointwise = [ConvGeometry(c1, c2, 1) for c1, c2 in itertools.pairwise(widths)]
    se_mobilenet = 4_231_976 + sum(
        2 * c * c // 16 + c + c // 16 for conv in pointwise for c in (conv.in_channels, conv.out_channels)
    )
    assert round((se_mobilenet + sum(added(conv, hidden="out") for conv in pointwise)) / 1e6, 4) == 5.5209


def test_keeps_no_weights_for_every_sample() -> None:
    """What autograd holds on to is far below N × C₂ × C₁ × 9 numbers, in every regime."""
    for channels, side, samples in ((128, 12, 8), (96, 4, 16)):
        module = AWConv2d(ConvGeometry(channels, channels, 3, padding=1))
        kept: dict[int, int] = {}

        def pack(t: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            module(torch.randn(samples, channels, side, side, requires_grad=True))
        assert sum(kept.values()) < samples * module.weight.numel() * 4 / 2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "side"), [(16, 12), (64, 4)])
def test_keeps_the_memory_format_and_the_type(channels: int, side: int, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    module = AWConv2d(ConvGeometry(channels, channels, 3, padding=1)).eval()
    x = torch.randn(4, channels, side, side).to(memory_format=memory_format).requires_grad_()
    y = module(x)
    assert y.is_contiguous(memory_format=memory_format)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(x)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), y, rtol=0.03, atol=0.03)
    wanted = [x, *module.parameters()]
    lows, fulls = (torch.autograd.grad(out.float().square().sum(), wanted) for out in (mixed, y))
    for low, full in zip(lows, fulls, strict=True):
        assert low.dtype == torch.float32
        assert (low - full).norm() < 0.05 * full.norm() + 1e-3


@pytest.mark.parametrize(("channels", "side"), [(16, 12), (64, 4)])
def test_compiles_to_one_graph(channels: int, side: int) -> None:
    torch.manual_seed(0)
    module = AWConv2d(ConvGeometry(channels, channels, 3, padding=1))
    x = torch.randn(4, channels, side, side, requires_grad=True)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    wanted = [x, *module.parameters()]
    ours, eager = (torch.autograd.grad(y.square().sum(), wanted) for y in (compiled, module(x)))
    for one, other in zip(ours, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_refuses_what_does_not_divide() -> None:
    point = Point(16, 8, 8, ConvGeometry(16, 12, 3, padding=1, groups=2))
    assert not tuple(AW.check(AWOptions(r_c1=4, r_c2=3, r_hw=3), point))
    fields = [p.field for p in AW.check(AWOptions(reduction=17, r_c1=16, r_c2=5, r_hw=2), point)]
    assert fields == ["reduction", "r_c1", "r_c2", "r_hw"]
    assert [p.choices for p in AW.check(AWOptions(r_c1=16), point)] == [("1", "2", "4", "8")]
    assert [p.message for p in AW.check(AWOptions(reduction=13, hidden="out"), point)] == [
        "Reduction ratio 13 is over the 12 output channels there."
    ]
    assert [p.field for p in AW.check(AWOptions(), Point(16, 8, 8))] == [""]
