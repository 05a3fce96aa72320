"""Requests travel as JSON, and a key tells whether two of them give the same result."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from search.architecture import Task
from search.recipes import resolve
from workers.training.request import TrialRequest

REQUEST = TrialRequest(
    architecture={"backbone": {"name": "resnet8", "width": 4}, "placements": {}},
    task=Task((1, 8, 8), 10),
    dataset="digits",
    recipe=resolve().model_dump(mode="json"),
    epochs=2,
    seed=0,
)


def test_a_request_survives_json() -> None:
    again = TrialRequest.from_json(json.loads(json.dumps(REQUEST.to_json())))
    assert again == REQUEST
    assert again.parsed_recipe() == resolve()
    assert again.precision == "fp32"


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        TrialRequest.from_json({**REQUEST.to_json(), "colour": "red"})


def test_the_key_is_of_what_decides_the_result() -> None:
    same = [replace(REQUEST, device="cuda"), replace(REQUEST, threads=4), replace(REQUEST, evaluate_test=True)]
    other = [replace(REQUEST, seed=1), replace(REQUEST, epochs=3), replace(REQUEST, dataset_options={"image_size": 16})]
    assert {request.key for request in same} == {REQUEST.key}
    assert len({request.key for request in other} | {REQUEST.key}) == 4


def test_requests_and_evaluators_need_no_torch() -> None:
    code = "import sys, workers.training.evaluators, workers.environment; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
