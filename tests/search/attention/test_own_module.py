"""The worked example of docs/own-module.md, installed as a package and run as written; and `verify` itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from search.attention import ATTENTION
from search.attention.verify import verify

ROOT = Path(__file__).parents[3]

USE = """
import sys
from search.attention import ATTENTION
from search.architecture import Architecture, Backbone, Module, Task
from search.errors import SpecError
from search.sites import Site
assert "contrast" in ATTENTION.names()
backbone, task = Backbone.make("resnet8", width=8), Task((3, 16, 16), 5)
plain = Architecture.make(backbone, {})
architecture = Architecture.make(backbone, {Site(2, 1, "residual"): [Module.make("contrast", groups=4)]})
architecture.check(task.input_shape)
assert Architecture.from_json(architecture.to_json()) == architecture
assert architecture.key != plain.key
misfit = Architecture.make(backbone, {Site(2, 1, "residual"): [Module.make("contrast", groups=3)]})
(problem,) = misfit.problems(task.input_shape)
assert problem.message == "Stage 2, module 'contrast': 3 groups cannot share 16 channels equally.", problem
try:
    Module.make("contrast", measure="loudness")
except SpecError as error:
    assert "deviation" in str(error)
else:
    raise AssertionError
assert "torch" not in sys.modules
import torch
from search.cost import CostTable
from search.models import build
torch.manual_seed(0); before = build(plain, task).eval()
torch.manual_seed(0); after = build(architecture, task).eval()
images = torch.rand(2, 3, 16, 16)
assert torch.equal(before(images), after(images))
table = CostTable(backbone, task)
assert table.architecture(architecture).params == table.backbone().params + 4
"""


def code_blocks() -> list[str]:
    text = (ROOT / "docs" / "own-module.md").read_text(encoding="utf-8")
    return re.findall(r"```(?:python|toml)\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    descriptor, module, toml, _ = code_blocks()
    (tmp_path / "mygate").mkdir()
    (tmp_path / "mygate" / "__init__.py").write_text(descriptor, encoding="utf-8")
    (tmp_path / "mygate" / "contrast.py").write_text(module, encoding="utf-8")
    info = tmp_path / "mygate-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mygate\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[attune.attention]\n" + toml.splitlines()[1].replace('"', "") + "\n")
    return tmp_path


def run(code: str, packages: Path) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path[:0] = [{str(packages)!r}, {str(ROOT)!r}]\n"
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=120, check=False)


def test_the_example_is_found_checked_built_and_costed(site_packages: Path) -> None:
    result = run(USE + code_blocks()[3], site_packages)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_false_promise_is_named(site_packages: Path) -> None:
    module = site_packages / "mygate" / "contrast.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace("torch.zeros(groups)", "torch.ones(groups)"), encoding="utf-8")
    result = run(code_blocks()[3], site_packages)
    assert "contrast: 8 × 8: it does not start as the identity" in result.stderr


@pytest.mark.slow
def test_a_module_that_mixes_samples_is_named(site_packages: Path) -> None:
    module = site_packages / "mygate" / "contrast.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(
        text.replace("self.weight * contrast)", "self.weight * contrast.mean(0, keepdim=True))"), encoding="utf-8"
    )
    result = run(code_blocks()[3], site_packages)
    assert "a sample's output depends on the others of its batch" in result.stderr


@pytest.mark.parametrize("name", ATTENTION.names())
def test_every_module_here_passes(name: str) -> None:
    verify(name)
