"""A plugin brings its own data set and evaluator; a request only names the data set."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from workers.training.evaluators import load_plugins, register_evaluator

PLUGIN = """
from workers.datasets import DATASETS
from workers.datasets.digits import Digits
from workers.training.evaluators import register_evaluator

class Sleeping(Digits):
    name = "sleeping"
    evaluator = "sleep"

class Session:
    epoch = 0
    def __init__(self, request):
        self.request = request

DATASETS.add(Sleeping())
register_evaluator("sleep", "sleep_plugin:Session")
"""

USE = """
import sys
from search.architecture import Task
from workers.training.evaluators import load_plugins, start_session
from workers.training.request import TrialRequest

load_plugins(); load_plugins()
request = TrialRequest({}, Task((1, 8, 8), 10), "sleeping", {}, 1, 0)
session = start_session(request)
assert type(session).__module__ == "sleep_plugin" and session.request is request
assert "torch" not in sys.modules
"""


def test_a_plugin_registers_both(tmp_path: Path) -> None:
    (tmp_path / "sleep_plugin.py").write_text(textwrap.dedent(PLUGIN))
    root = Path(__file__).resolve().parents[3]
    environment = {"PYTHONPATH": f"{tmp_path}:{root}", "ATTUNE_PLUGINS": "sleep_plugin, "}
    subprocess.run([sys.executable, "-c", USE], check=True, timeout=60, env=environment)


def test_a_missing_plugin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_PLUGINS", "no_such_plugin_here")
    with pytest.raises(ImportError, match="no_such_plugin_here"):
        load_plugins()


def test_an_evaluator_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        register_evaluator("classification", "elsewhere:Session")
