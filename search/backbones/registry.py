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


def options_are_the_plan(options: Any) -> Any:
    """For backbones whose options say everything."""
    return options


def same_name(name: str) -> str:
    """For backbones whose parameters are named as in the files that are published for them."""
    return name


@dataclass(frozen=True)
class BackboneInfo:
    """What attune knows of a backbone without building it.

    source: paper and section, for people.
    geometry: (options, input shape C × H × W) → its stages; raises SpecError when the image is too small.
    implementation: "package.module:function", called as function(plan, in_channels, classes) → nn.Module
        that has `slots(site: Site) -> list[tuple[nn.Module, str]]`: for each point of the site, in the order
        of the geometry, the parent and the attribute to replace: an `nn.Identity` to put modules in, or for
        `conv` the `nn.Conv2d`.
    plan: what `implementation` gets, made of the options (a family shares one network over many names).
    pretrained_as: torchvision's model whose state dict fits with the default options, if there is one.
    weight_name: the network's name of a parameter that is called otherwise in published files.
    """

    name: str
    title: str
    source: str
    options: type[Options]
    geometry: Callable[[Any, Shape], tuple[StageGeometry, ...]]
    implementation: str
    plan: Callable[[Any], Any] = options_are_the_plan
    pretrained_as: str | None = None
    weight_name: Callable[[str], str] = same_name

    def build(self, options: Options, in_channels: int, classes: int) -> Any:
        """The network without attention, freshly initialised (imports torch)."""
        return load_object(self.implementation)(self.plan(options), in_channels, classes)


class BackboneRegistry(Registry[BackboneInfo]):
    """Backbones by name, and "torchvision:NAME" and "timm:NAME", whose sites are traced when they are first used."""

    def get(self, name: str, field: str = "") -> BackboneInfo:
        return _traced(name) or super().get(name, field)

    def __contains__(self, name: str) -> bool:
        return _traced(name) is not None or super().__contains__(name)


def _traced(name: str) -> BackboneInfo | None:
    info: BackboneInfo | None = load_object("search.backbones.entries.libraries:traced")(name) if ":" in name else None
    return info


BACKBONES = BackboneRegistry("backbone", "attune.backbones")
