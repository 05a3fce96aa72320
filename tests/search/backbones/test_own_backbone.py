"""The worked example of docs/own-backbone.md, installed as a package and run as written."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.backbones import BACKBONES
from search.backbones.verify import verify
from search.sites import BlockGeometry, ConvGeometry, Shape, StageGeometry

ROOT = Path(__file__).parents[3]

USE = """
from search.architecture import Architecture, Backbone, Module, Task
from search.backbones import BACKBONES
from search.cost import CostTable
from search.models import build
from search.sites import Site
import sys, torch
assert "mynet" in BACKBONES.names()
backbone, task = Backbone.make("mynet", width=8), Task((3, 9, 7), 5)
placement = {Site(2, 1, "residual"): [Module.make("se", reduction=4)], Site(1, 1, "stage_end"): [Module.make("eca")],
             Site(1, 1, "conv"): [Module.make("aw", reduction=4)]}
architecture = Architecture.make(backbone, placement)
network = build(architecture, task)
assert network(torch.rand(2, 3, 9, 7)).shape == (2, 5)
assert CostTable(backbone, task).architecture(architecture).params == sum(p.numel() for p in network.parameters())
"""


def code_blocks() -> list[str]:
    text = (ROOT / "docs" / "own-backbone.md").read_text(encoding="utf-8")
    return re.findall(r"```(?:python|toml)\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    descriptor, network, toml, _ = code_blocks()
    (tmp_path / "mynet").mkdir()
    (tmp_path / "mynet" / "__init__.py").write_text(descriptor, encoding="utf-8")
    (tmp_path / "mynet" / "network.py").write_text(network, encoding="utf-8")
    info = tmp_path / "mynet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mynet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[attune.backbones]\n" + toml.splitlines()[1].replace('"', "") + "\n")
    return tmp_path


def run(code: str, packages: Path) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path[:0] = [{str(packages)!r}, {str(ROOT)!r}]\n"
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=280, check=False)


def test_the_example_is_found_built_and_costed(site_packages: Path) -> None:
    result = run(USE + code_blocks()[3], site_packages)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("lie", ["shape", "conv", "position"])
def test_a_geometry_that_lies_is_named(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = BACKBONES.get("resnet8")

    def geometry(options: Any, image: Shape) -> tuple[StageGeometry, ...]:
        first, second, third = honest.geometry(options, image)
        points = dict(second.blocks[0].points)
        if lie == "shape":
            points["residual"] = (replace(points["residual"][0], height=3),)
        elif lie == "conv":
            points["conv"] = (replace(points["conv"][0], conv=ConvGeometry(16, 32, 3, 1, 1)), points["conv"][1])
        else:
            points["fpn_output"] = points["post"]
        return first, StageGeometry(2, (BlockGeometry(points),)), third

    monkeypatch.setitem(BACKBONES._entries, "liar", replace(honest, name="liar", geometry=geometry))
    verify("resnet8", (3, 32, 32))
    expected = {
        "shape": r"2\.1\.residual, point 1: runs on \[\(32, 16, 16\)\]",
        "conv": r"2\.1\.conv: the convolution is .*stride=2.* described is .*stride=1",
        "position": r"2\.1\.fpn_output, point 1: runs on \[\], described is Point",
    }[lie]
    with pytest.raises(ValueError, match=expected):
        verify("liar", (3, 32, 32))
