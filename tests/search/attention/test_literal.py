"""Every module against a slow, literal version of its formula, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from search.attention import ATTENTION
from search.sites import ConvGeometry, Point
from tests.search.attention import literal_layered, literal_pooling, literal_relational
from tests.search.attention.cases import POINT, Case
from tests.search.attention.literal_layers import LITERALS

__all__ = ["literal_layered", "literal_pooling", "literal_relational"]


def compare(case: Case, point: Point) -> None:
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


def test_equals_the_formula(case: Case) -> None:
    if case.info.name not in LITERALS:
        pytest.skip("compared in its own file")
    compare(case, POINT)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 2), (1, 9)])
def test_equals_the_formula_on_other_maps(default_case: Case, height: int, width: int) -> None:
    if default_case.info.name not in LITERALS:
        pytest.skip("compared in its own file")
    compare(default_case, replace(POINT, height=height, width=width))


@pytest.mark.parametrize(
    "conv",
    [
        ConvGeometry(32, 40, 3, stride=2, padding=1),
        ConvGeometry(32, 40, 3, padding=2, dilation=2, bias=True),
        ConvGeometry(32, 40, 1, groups=4),
        ConvGeometry(32, 64, 7, stride=2, padding=3),
    ],
    ids=["stride", "dilation", "pointwise-groups", "stem"],
)
def test_augmented_convolution_replaces_any_convolution(default_case: Case, conv: ConvGeometry) -> None:
    if default_case.info.name == "augmented_conv":
        compare(default_case, Point(32, 7, 6, conv))
