"""A small trial on the native digits: a second or so on one core."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from search.recipes import resolve
from tests.workers.datasets.conftest import data as data
from tests.workers.datasets.conftest import home as home
from workers.datasets.loading import entry
from workers.training.request import TrialRequest


class MakeRequest(Protocol):
    def __call__(self, *, recipe: dict[str, Any] | None = None, **changed: Any) -> TrialRequest: ...


@pytest.fixture
def make_request() -> MakeRequest:
    def make(*, recipe: dict[str, Any] | None = None, **changed: Any) -> TrialRequest:
        resolved = entry("digits").resolve()
        fields: dict[str, Any] = {
            "architecture": {"backbone": {"name": "resnet8", "width": 4}, "placements": {}},
            "task": resolved.task,
            "dataset": "digits",
            "fingerprint": resolved.fingerprint,
            "recipe": resolve("quick", {"epochs": 2, **(recipe or {})}).model_dump(mode="json"),
            "epochs": 2,
            "seed": 0,
        }
        return TrialRequest(**{**fields, **changed})

    return make
