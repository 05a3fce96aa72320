"""Requests are checked without torch: names, options and geometry need none."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from search.architecture import Backbone
from search.backbones import BACKBONES
for name in BACKBONES.names():
    assert Backbone.make(name).stages((3, 64, 64)), name
assert "torchvision:resnet18" in BACKBONES
Backbone.make("torchvision:resnet18")
assert not {"torch", "torchvision", "timm"} & set(sys.modules), "a descriptor loads torch"
"""


def test_descriptors_and_geometry_load_no_torch() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=280)
