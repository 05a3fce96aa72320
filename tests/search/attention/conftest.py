"""Fixtures that run a test for every module of the registry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from search.attention import ATTENTION, AttentionInfo
from tests.search.attention.cases import CASES, DEFAULTS, Case


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=CASES, ids=lambda case: case.label)
def case(request: pytest.FixtureRequest) -> Case:
    """Every module with every value of every option."""
    found: Case = request.param
    return found


@pytest.fixture(params=DEFAULTS, ids=lambda case: case.label)
def default_case(request: pytest.FixtureRequest) -> Case:
    """Every module with its default options."""
    found: Case = request.param
    return found


@pytest.fixture(params=tuple(ATTENTION), ids=lambda info: info.name)
def info(request: pytest.FixtureRequest) -> AttentionInfo:
    """Every module's descriptor."""
    found: AttentionInfo = request.param
    return found
