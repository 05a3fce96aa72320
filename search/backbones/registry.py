"""Backbones by name: torch-free descriptors with closed-form geometry; the network is loaded on first use.

To add a backbone: one file per family with the network and one with its entries and geometry.
Another package does the same through the entry-point group `attune.backbones`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.registry import Options, Registry, load_object
from search.sites import Shape, StageGeometry


@dataclass(frozen=True)
class BackboneInfo:
    """What attune knows of a backbone without building it.

    geometry: (options, input shape C × H × W) → its stages; raises SpecError when the image is too small.
    implementation: "package.module:function", called as function(options, in_channels, classes) → nn.Module
        that has `slots(site: Site) -> list[tuple[nn.Module, str]]`: for each point of the site, the parent and
        the attribute to replace: an `nn.Identity` to put modules in, or for `conv` the `nn.Conv2d`.
    """

    name: str
    title: str
    source: str
    options: type[Options]
    geometry: Callable[[Any, Shape], tuple[StageGeometry, ...]]
    implementation: str

    def build(self, options: Options, in_channels: int, classes: int) -> Any:
        """The network without attention, freshly initialised (imports torch)."""
        return load_object(self.implementation)(options, in_channels, classes)


BACKBONES: Registry[BackboneInfo] = Registry("backbone", "attune.backbones")
