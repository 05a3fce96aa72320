"""Every module of the registry with its default options, and with every option changed, one at a time."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import nn

from search.attention import ATTENTION, AttentionInfo
from search.registry import Options
from search.sites import ConvGeometry, Point

CHANNELS = 32
POINT = Point(CHANNELS, 5, 6, ConvGeometry(CHANNELS, 40, 3, padding=1))


@dataclass(frozen=True)
class Case:
    """A module with some options, at any point."""

    info: AttentionInfo
    options: Options
    label: str

    def fits(self, point: Point) -> bool:
        return not tuple(self.info.check(self.options, point))

    def build(self, point: Point = POINT, seed: int = 0) -> nn.Module:
        """Freshly initialised, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module: nn.Module = self.info.build(self.options, point)
        return module.eval()

    def trained(self, point: Point = POINT, seed: int = 0) -> nn.Module:
        """With every parameter and statistic drawn anew, so that no gate is closed and no layer is trivial."""
        module = self.build(point, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    drawn = (
                        torch.rand(tensor.shape, generator=generator)
                        if name.endswith("running_var")
                        else torch.randn(tensor.shape, generator=generator) * 0.4
                    )
                    tensor.copy_(drawn + 0.5 if name.endswith("running_var") else drawn)
        return module

    def output(self, point: Point) -> tuple[int, int, int]:
        """Channels, height and width of what comes out."""
        if "conv" not in self.info.takes:
            return point.shape
        conv = point.conv
        assert conv is not None
        reach = conv.dilation * (conv.kernel_size - 1) + 1
        height, width = ((side + 2 * conv.padding - reach) // conv.stride + 1 for side in (point.height, point.width))
        return (conv.out_channels, height, width)


def field_values(annotation: Any) -> Iterator[Any]:
    """Some values that an option of this type may take."""
    origin = get_origin(annotation)
    if origin is Literal:
        yield from get_args(annotation)
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from field_values(part)
    elif origin is not None:  # Annotated
        yield from field_values(get_args(annotation)[0])
    elif annotation is type(None):
        yield None
    elif annotation is bool:
        yield from (False, True)
    elif annotation is int:
        yield from (2, 3)
    elif annotation is float:
        yield from (0.25, 0.5)
    else:
        raise TypeError(f"the contract tests know no values of {annotation}")


def make_options(info: AttentionInfo, **values: Any) -> Options | None:
    """The options, or None where they contradict each other or leave a range."""
    try:
        return info.options.model_validate(values)
    except ValidationError:
        return None


# Options that have an effect only beside others.
BASES: dict[str, tuple[dict[str, Any], ...]] = {
    "cbam": ({"branches": "spatial"}, {"branches": "channel"}),
    "gather_excite": ({"variant": "theta"}, {"variant": "plus"}),
    "nonlocal": ({"affinity": "dot_product", "pool": True},),
    "sparse_attention": ({"local": 4, "stride": 3}, {"local": 50, "stride": 50, "heads": 4}),
}


def cases_of(info: AttentionInfo) -> Iterator[Case]:
    """The defaults first, then every other value of every option; those that fit the usual point."""
    seen = set()
    for base in ({}, *BASES.get(info.name, ())):
        changes = [
            (name, value)
            for name, field in info.options.model_fields.items()
            for value in field_values(field.annotation)
        ]
        for values in (base, *({**base, name: value} for name, value in changes)):
            options = make_options(info, **values)
            if options is None or options in seen:
                continue
            seen.add(options)
            case = Case(info, options, "-".join([info.name, *(f"{k}={v}" for k, v in values.items())]))
            if case.fits(POINT):
                yield case


CASES = tuple(case for info in ATTENTION for case in cases_of(info))
DEFAULTS = tuple(Case(info, info.options(), info.name) for info in ATTENTION)
