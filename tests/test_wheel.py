"""What is installed is what is in the wheel: the data, schema and pages beside the code, and nothing of the tests."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("db", "search", "service", "workers")
DATA = (
    "search/data/published.csv",
    "db/migrations/script.py.mako",
    "db/migrations/env.py",
    "db/migrations/versions/0001_first_schema.py",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_it_holds_code_and_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert names >= set(DATA)
    for folder in ("service/dashboard/templates", "service/dashboard/static"):
        there = {str(path.relative_to(ROOT)) for path in (ROOT / folder).iterdir() if path.is_file()}
        assert there
        assert names >= there
    for package in PACKAGES:
        code = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert names >= code


def test_it_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    others = [name for name in wheel.namelist() if not name.startswith((*(f"{p}/" for p in PACKAGES), "attune-"))]
    assert others == []


def test_the_command_and_the_extra(wheel: zipfile.ZipFile) -> None:
    def text(suffix: str) -> str:
        (name,) = (name for name in wheel.namelist() if name.endswith(suffix))
        return wheel.read(name).decode()

    assert "attune = service.cli.main:run" in text(".dist-info/entry_points.txt")
    metadata: Message = Parser().parsestr(text(".dist-info/METADATA"))
    assert metadata.get_all("Provides-Extra") == ["timm"]
    required = metadata.get_all("Requires-Dist") or []
    assert [line for line in required if line.startswith("timm")] == ["timm>=1.0.9; extra == 'timm'"]
