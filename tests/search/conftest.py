"""A published data set and plans made from short requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search.datasets import DatasetEntry, DatasetOption
from search.plan import SearchPlan, make_plan
from search.spec import SearchSpec

Entries = dict[str, DatasetEntry]
MakePlan = Callable[..., SearchPlan]


@pytest.fixture(scope="session")
def datasets() -> Entries:
    """One data set of grey 12 × 12 images, whose size is an option."""
    size = DatasetOption(name="size", type="int", default=12, minimum=1, maximum=64, doc="Size.", sets="image_size")
    entry = DatasetEntry(
        name="dots",
        title="Dots",
        source="made up",
        input_shape=(1, 12, 12),
        classes=10,
        train_size=100,
        validation_size=20,
        test_size=20,
        fingerprint="f" * 64,
        options=(size,),
    )
    return {entry.name: entry}


@pytest.fixture(scope="session")
def make(datasets: Entries) -> MakePlan:
    """The plan of a request with these fields."""

    def plan(**fields: Any) -> SearchPlan:
        return make_plan(SearchSpec.parse({"name": "x", "dataset": {"name": "dots"}, **fields}), datasets)

    return plan
