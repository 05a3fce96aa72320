"""Attention modules by name: torch-free descriptors that load their `nn.Module` on first use.

To add a module: one file with the `nn.Module` (paper and section in its docstring) and one entry in
`search/attention/entries/`. Another package does the same through the entry-point group `attune.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from search.errors import Problem
from search.registry import Options, Registry, load_object
from search.sites import Point, Position

Check = Callable[[Any, Point], Iterator[Problem]]


def no_check(options: Options, point: Point) -> Iterator[Problem]:
    """The module fits everywhere."""
    return iter(())


def any_options(options: Options) -> bool:
    """Whatever the options."""
    return True


def check_reduction(options: Any, point: Point) -> Iterator[Problem]:
    """The bottleneck of C / r channels needs at least one channel."""
    if options.reduction > point.channels:
        yield Problem(
            "reduction",
            f"Reduction ratio {options.reduction} is over the {point.channels} channels there.",
            tuple(str(2**k) for k in range(1, point.channels.bit_length())),
        )


@dataclass(frozen=True)
class AttentionInfo:
    """What attune knows of a module without building it.

    name: as in a request ("se"). title, source: for people; source gives paper and section.
    implementation: "package.module:Class"; the class is called as `takes` says, options as keywords:
        channels  Class(channels, **options)
        size      Class(channels, size=(height, width), **options)
        conv      Class(conv: ConvGeometry, **options), replacing that convolution
        conv_size Class(conv, size=(height, width), **options): the same, and the size of its input
    positions: where it may go; the first is its default, the one its paper uses.
    identity_at_start: a freshly built module with default options leaves its input as it is, so pretrained weights
        keep their accuracy; `starts_as_identity` answers for other options.
    identity_if: what the options must be for that.
    check: problems of these options at a point, fields relative to the options.
    """

    name: str
    title: str
    source: str
    implementation: str
    options: type[Options]
    positions: tuple[Position, ...]
    takes: Literal["channels", "size", "conv", "conv_size"] = "channels"
    identity_at_start: bool = False
    identity_if: Callable[[Any], bool] = any_options
    check: Check = no_check

    @property
    def has_reduction(self) -> bool:
        return "reduction" in self.options.model_fields

    def starts_as_identity(self, options: Options) -> bool:
        """Whether a freshly built module with these options leaves its input as it is."""
        return self.identity_at_start and self.identity_if(options)

    def build(self, options: Options, point: Point) -> Any:
        """The `nn.Module` for `point`, freshly initialised (imports torch)."""
        cls = load_object(self.implementation)
        values = options.model_dump()
        match self.takes:
            case "channels":
                return cls(point.channels, **values)
            case "size":
                return cls(point.channels, size=(point.height, point.width), **values)
            case "conv":
                return cls(point.conv, **values)
            case "conv_size":
                return cls(point.conv, size=(point.height, point.width), **values)


ATTENTION: Registry[AttentionInfo] = Registry("attention module", "attune.attention")
