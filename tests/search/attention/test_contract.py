"""What every attention module keeps to, whoever wrote it: one set of tests over the whole registry."""

from __future__ import annotations

import inspect
import re
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from search import counting
from search.attention import ATTENTION, AttentionInfo
from search.registry import load_object
from search.sites import POSITIONS, ConvGeometry, Point
from tests.search.attention.cases import CASES, POINT, Case, field_values

SIZES = ((5, 6), (9, 4), (8, 8), (1, 7), (1, 1))

# Softmax does not change when all its logits move together, so these biases have no gradient (nor have they any in
# the authors' code, which has them).
CANCELLED = {
    "nonlocal": {"phi.bias"},
    "danet_position": {"key.bias"},
    "danet_dual": {"position.key.bias"},
    "gc": {"mask.bias"},
    "sca": {"channel.2.bias", "spatial.2.bias"},
    "a2": {"gather.bias"},
}


def images(point: Point = POINT, batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, *point.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_keeps_the_shape_of_a_single_image(case: Case, height: int, width: int) -> None:
    point = replace(POINT, height=height, width=width)
    if not case.fits(point):
        assert min(height, width) == 1, "only tiny maps may be refused"
        return
    with torch.no_grad():
        y = case.trained(point)(images(point, 1))
    assert y.shape == (1, *case.output(point))
    assert y.isfinite().all()


def test_channels_last_gives_the_same_numbers(case: Case) -> None:
    module, x = case.trained(), images()
    with torch.no_grad():
        expected = module(x)
        got = module.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-4)


def test_runs_in_bf16(case: Case) -> None:
    module, x = case.build(), images() * 0.1
    with torch.no_grad():
        expected = module(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = module(x)
        low = module.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05)


def test_gradients_reach_every_parameter_and_the_input(case: Case) -> None:
    """In eval mode: the statistics of a batch would cancel the biases before batch norm."""
    silent = {name for name, _ in case.build().named_parameters()}
    for seed in range(3):  # a ReLU may be dead for one draw
        module, x = case.trained(seed=seed).double(), images(POINT, 3, seed).double().requires_grad_()
        module(x).square().sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0
        silent -= {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-9}
    assert silent <= CANCELLED.get(case.info.name, set())


def test_eval_is_deterministic_and_leaves_its_input(case: Case) -> None:
    module, x = case.trained(), images()
    before = x.clone()
    with torch.no_grad():
        assert torch.equal(module(x), module(x))
    assert torch.equal(x, before)


def test_a_sample_does_not_depend_on_the_others(case: Case) -> None:
    # in float64: another batch size may sum in another order
    module, x = case.trained().double(), images(POINT, 3).double()
    with torch.no_grad():
        torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=1e-9, atol=1e-9)


def test_state_dict_round_trip(case: Case) -> None:
    module, x = case.trained(), images()
    twin = case.build(seed=5)
    twin.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert torch.equal(twin(x), module(x))


def test_cost_on_meta_is_the_cost_of_a_built_module(case: Case) -> None:
    module = case.build()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(images(POINT, 1))
    meta = counting.on_meta(lambda: case.info.build(case.options, POINT))
    assert counting.macs(meta, POINT.shape) * 2 == counter.get_total_flops()
    assert counting.parameters(meta) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_starts_as_the_identity_where_it_says_so(case: Case, training: bool) -> None:
    module, x = case.build().train(training), images()
    y = module(x)
    same = y.shape == x.shape and torch.equal(y, x)
    assert same == case.info.starts_as_identity(case.options)


def _exported(case: Case) -> None:
    module, x = case.trained(), images()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own
        program = torch.export.export(module, (x,)).module()
        torch.testing.assert_close(program(x), module(x), rtol=1e-4, atol=1e-4)


def test_exports(default_case: Case) -> None:
    _exported(default_case)


@pytest.mark.slow
def test_exports_with_every_option(case: Case) -> None:
    _exported(case)


def _compiled(case: Case, backend: str) -> None:
    module, x = case.trained(), images().requires_grad_()
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast = torch.compile(module, backend=backend, fullgraph=True)(x)
    fast.square().sum().backward()
    torch.testing.assert_close(fast, module(x), rtol=1e-3, atol=1e-3)


def test_is_one_graph_to_the_compiler(default_case: Case) -> None:
    _compiled(default_case, "aot_eager")


@pytest.mark.slow
def test_compiles(default_case: Case) -> None:
    _compiled(default_case, "inductor")


def test_every_value_of_every_option_is_reachable(info: AttentionInfo) -> None:
    for name, field in info.options.model_fields.items():
        tried = {getattr(case.options, name) for case in CASES if case.info is info}
        assert len(tried) > 1, f"{info.name}.{name} has one value only"
        choices = [value for value in field_values(field.annotation) if isinstance(value, bool | str)]
        assert tried >= set(choices), f"{info.name}.{name}"


def test_names_its_source(info: AttentionInfo) -> None:
    paper = re.search(r"arXiv \d{4}\.\d{5}", info.source)
    assert paper
    assert re.search(r"section", info.source)
    implementation = load_object(info.implementation)
    text = inspect.getmodule(implementation).__doc__
    assert paper.group() in text
    assert "section" in text
    assert "=" in text, "a formula"
    assert implementation.__doc__


def test_describes_itself(info: AttentionInfo) -> None:
    assert info.positions
    assert set(info.positions) <= set(POSITIONS)
    assert ("conv" in info.takes) == (info.positions == ("conv",))
    for name, field in info.options.model_fields.items():
        assert field.description, f"{info.name}.{name}"


def test_options_survive_json(info: AttentionInfo) -> None:
    """What was validated once is canonical: it survives JSON, as the database keeps it."""
    for case in (case for case in CASES if case.info is info):
        again = info.options.model_validate_json(case.options.model_dump_json())
        assert again == case.options
        assert hash(again) == hash(case.options)


def _odd_sizes(kernel: int, dilation: int) -> int:
    return dilation * (kernel - 1) // 2


@st.composite
def points(draw: st.DrawFn) -> Point:
    """Any tensor, with any convolution that could be there."""
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    channels, outputs = (draw(st.sampled_from([1, 2, 3, 6, 16])) * groups for _ in range(2))
    kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2]))
    padding = draw(st.sampled_from([_odd_sizes(kernel, dilation), 0]))
    least = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
    height, width = (draw(st.integers(least, least + 8)) for _ in range(2))
    conv = ConvGeometry(channels, outputs, kernel, draw(st.sampled_from([1, 2])), padding, dilation, groups)
    return Point(channels, height, width, conv)


@pytest.mark.parametrize("name", ATTENTION.names())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data(), point=points())
def test_what_check_lets_through_runs(name: str, data: st.DataObject, point: Point) -> None:
    info = ATTENTION.get(name)
    drawn = {}
    for option, field in info.options.model_fields.items():
        values = list(field_values(field.annotation))
        more = [9, 16, 64] if any(type(value) is int for value in values) else []
        drawn[option] = data.draw(st.sampled_from([field.default, *values, *more]), label=option)
    try:
        options = info.options.model_validate(drawn)
    except ValidationError:
        return
    problems = tuple(info.check(options, point))
    for problem in problems:
        assert problem.field in {"", *info.options.model_fields}
        assert problem.message.endswith(".")
    if problems:
        return
    with torch.device("meta"):
        module = info.build(options, point).eval()
        y = module(torch.empty(2, *point.shape))
    assert tuple(y.shape[2:]) == _expected_size(info, point)
    assert all(p.numel() for p in module.parameters())


def _expected_size(info: AttentionInfo, point: Point) -> tuple[int, ...]:
    conv = point.conv
    if "conv" not in info.takes or conv is None:
        return (point.height, point.width)
    reach = conv.dilation * (conv.kernel_size - 1) + 1
    return tuple((side + 2 * conv.padding - reach) // conv.stride + 1 for side in (point.height, point.width))
