"""`torchvision:NAME` and `timm:NAME`: descriptors of networks whose sites are found by tracing (loads torch)."""

from __future__ import annotations

from functools import lru_cache

from search.backbones.entries.densenet import weight_name
from search.backbones.registry import BackboneInfo, same_name
from search.registry import Options, load_object
from search.sites import Shape, StageGeometry

LIBRARIES = {"torchvision": "torchvision's networks", "timm": "PyTorch Image Models (Wightman 2019)"}


class TracedOptions(Options):
    """A library's network has no options here: its name says everything."""


@lru_cache(maxsize=256)
def traced(name: str) -> BackboneInfo | None:
    """The descriptor of "LIBRARY:NAME"; None for other names. Whether the library has it shows when it is used."""
    library, colon, _ = name.partition(":")
    if not colon or library not in LIBRARIES:
        return None

    def geometry(options: TracedOptions, image: Shape) -> tuple[StageGeometry, ...]:
        stages: tuple[StageGeometry, ...] = load_object("search.backbones.libraries:geometry")(name, image)
        return stages

    return BackboneInfo(
        name,
        name,
        LIBRARIES[library],
        TracedOptions,
        geometry,
        "search.backbones.libraries:build",
        lambda options: name,
        weight_name=weight_name if "densenet" in name else same_name,
    )
