"""What is written down of the place where a trial ran."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from workers import environment as module
from workers.environment import code_revision, environment


def test_it_names_versions_and_device_and_fits_into_json() -> None:
    found = environment("cpu")
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["device"]
    assert json.loads(json.dumps(found)) == found


def test_the_revision_of_an_image_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_REVISION", "abc123")
    assert code_revision() == "abc123"


def test_the_revision_of_a_checkout_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "workers"
    package.mkdir()
    (package / "environment.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(package / "environment.py"))
    monkeypatch.delenv("ATTUNE_REVISION", raising=False)
    assert code_revision() == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, timeout=30)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, timeout=30, capture_output=True, text=True).stdout
    assert code_revision() == commit.strip()
    (package / "environment.py").write_text("changed = True\n")
    assert code_revision() == f"{commit.strip()}+changes"
