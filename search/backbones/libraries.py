"""Networks of torchvision and timm as backbones: their sites are traced, their parameter names kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from search.backbones.geometry import Points, stage_of
from search.backbones.tracing import FAILURES, Calls, Structure, TracedBlock, fail, find_structure, observe
from search.errors import SpecError, shown
from search.sites import ConvGeometry, Point, Position, Shape, Site, StageGeometry

REFERENCE = 224
"""Height and width at which stages are found, unless a network names its own: on tiny images they would merge."""


class Insert:
    """A forward hook that sends a module's output through whatever is in a slot.

    An object and not a function, so that a copy of the network has hooks to its own slots.
    """

    def __init__(self, slots: nn.ModuleDict, name: str) -> None:
        self.slots = slots
        self.name = name

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Any:
        return self.slots[self.name](output)


class Slots:
    """`network.slots(site)`: parents and attributes of the site's points (see BackboneInfo)."""

    def __init__(self, network: nn.Module, inserted: nn.ModuleDict, structure: Structure) -> None:
        self.network = network
        self.inserted = inserted
        self.structure = structure

    def __call__(self, site: Site) -> list[tuple[nn.Module, str]]:
        if site.position != "conv":
            return [(self.inserted, slot_name(site))]
        paths = (conv.rpartition(".") for conv in self.structure[site.stage - 1][site.block - 1].convs)
        return [(self.network.get_submodule(parent), name) for parent, _, name in paths]


def slot_name(site: Site) -> str:
    return str(site).replace(".", "_")


def build(name: str, in_channels: int, classes: int) -> nn.Module:
    """The network called "torchvision:NAME" or "timm:NAME", freshly initialised, with slots at its sites."""
    network = make(name, in_channels, classes)
    structure = structure_of(name, in_channels)
    inserted = nn.ModuleDict()
    for site, path in _hooked(structure):
        inserted[slot_name(site)] = nn.Identity()
        network.get_submodule(path).register_forward_hook(Insert(inserted, slot_name(site)))
    network.add_module("attune", inserted)
    network.slots = Slots(network, inserted, structure)  # type: ignore[assignment]
    return network


def _hooked(structure: Structure) -> list[tuple[Site, str]]:
    """Sites with the module whose output they take; `post` before `stage_end`, as hooks run in this order."""
    found: list[tuple[Site, str]] = []
    for stage, blocks in enumerate(structure, start=1):
        for number, block in enumerate(blocks, start=1):
            if block.residual is not None:
                found.append((Site(stage, number, "residual"), block.residual))
            found.append((Site(stage, number, "post"), block.path))
        found.append((Site(stage, len(blocks), "stage_end"), blocks[-1].path))
    return found


def geometry(name: str, image: Shape) -> tuple[StageGeometry, ...]:
    """The stages of a traced network on images of C × H × W."""
    structure = structure_of(name, image[0])
    try:
        calls = observe(_on_meta(name, image[0]), image)
    except FAILURES as error:
        raise SpecError.one("input_shape", f"{name} does not run on images of {image}: {error}") from error
    network = _on_meta(name, image[0])
    return tuple(
        stage_of(number, [_points(network, calls, block) for block in blocks], _shape(calls, blocks[-1].path))
        for number, blocks in enumerate(structure, start=1)
    )


def paths(name: str, in_channels: int = 3) -> dict[Site, tuple[str, ...]]:
    """The report of a trace: every site, with the modules of the network that it belongs to."""
    structure = structure_of(name, in_channels)
    found: dict[Site, tuple[str, ...]] = {site: (path,) for site, path in _hooked(structure)}
    for stage, blocks in enumerate(structure, start=1):
        for number, block in enumerate(blocks, start=1):
            if block.convs:
                found[Site(stage, number, "conv")] = block.convs
    return dict(sorted(found.items()))


def _points(network: nn.Module, calls: Calls, block: TracedBlock) -> Points:
    out = (Point(*_shape(calls, block.path)),)
    points: dict[Position, tuple[Point, ...]] = {"post": out}
    if block.residual is not None:
        points["residual"] = out
    if block.convs:
        points["conv"] = tuple(
            Point(*_shape(calls, path, given=True), conv=_conv(network.get_submodule(path))) for path in block.convs
        )
    return points


def _shape(calls: Calls, path: str, given: bool = False) -> Shape:
    (call,) = calls[path]
    tensor = call.given if given else call.made
    assert tensor is not None
    _, channels, height, width = tensor.shape
    return channels, height, width


def _conv(module: nn.Module) -> ConvGeometry:
    assert isinstance(module, nn.Conv2d)
    assert not isinstance(module.padding, str)
    return ConvGeometry(
        module.in_channels,
        module.out_channels,
        module.kernel_size[0],
        module.stride[0],
        module.padding[0],
        module.dilation[0],
        module.groups,
        module.bias is not None,
    )


@lru_cache(maxsize=64)
def structure_of(name: str, in_channels: int) -> Structure:
    """Found once, at the network's own image size."""
    network = _on_meta(name, in_channels)
    size = getattr(network, "default_cfg", {}).get("input_size", (3, REFERENCE, REFERENCE))
    image = (in_channels, size[1], size[2])
    structure = find_structure(name, network, image)
    try:
        with torch.no_grad():
            logits = network.train()(torch.empty(2, *image, device="meta"))
    except FAILURES as error:
        raise fail(name, f"it does not run in training: {error}") from error
    if not isinstance(logits, Tensor) or logits.shape != (2, 2):
        raise fail(name, "in training it returns something else than one row of logits per image.")
    return structure


@lru_cache(maxsize=8)
def _on_meta(name: str, in_channels: int) -> nn.Module:
    with torch.device("meta"):
        return make(name, in_channels, classes=2)


def make(name: str, in_channels: int, classes: int) -> nn.Module:
    """The library's own network, without weights of its own: nothing is downloaded."""
    library, _, model = name.partition(":")
    return MAKERS[library](model, in_channels, classes)


def _torchvision(name: str, in_channels: int, classes: int) -> nn.Module:
    from torchvision import models

    _check(name, "torchvision", models.list_models(module=models))
    if in_channels != 3:
        raise SpecError.one("input_shape", f"torchvision's networks take 3 channels, not {in_channels}.")
    return _create(f"torchvision:{name}", partial(models.get_model, name, weights=None, num_classes=classes))


def _timm(name: str, in_channels: int, classes: int) -> nn.Module:
    if find_spec("timm") is None:
        raise SpecError.one("backbone.name", "timm is not installed here: pip install 'attune[timm]'.")
    import timm

    _check(name, "timm", timm.list_models())
    create = partial(timm.create_model, name, pretrained=False, in_chans=in_channels, num_classes=classes)
    return _create(f"timm:{name}", create)


def _create(name: str, create: Callable[[], nn.Module]) -> nn.Module:
    """Some constructors read numbers back, which meta tensors do not have: those are built on the CPU and moved."""
    try:
        return create()
    except FAILURES as error:
        if torch.get_default_device().type != "meta":
            raise fail(name, str(error)) from error
    with torch.device("cpu"):
        return _create(name, create).to("meta")


MAKERS: dict[str, Callable[[str, int, int], nn.Module]] = {"torchvision": _torchvision, "timm": _timm}


def _check(name: str, library: str, known: list[str]) -> None:
    """Only names that the library itself lists: others can mean a download."""
    if name not in known:
        close = [f"{library}:{found}" for found in difflib.get_close_matches(name[:100], known, n=5)]
        raise SpecError.one("backbone.name", f"{library} has no network {shown(name)}.", close)
