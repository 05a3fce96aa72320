"""Exact cost in parameters and multiply–adds, additive over sites.

A module keeps its input's shape, so an architecture costs its backbone plus a sum over its placements. Each
(modules, shape) is counted once on the meta device with `torch.utils.flop_counter`; from then on costs
are table sums. Multiply–adds are those of convolutions and matrix products, as the papers count "FLOPs".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from search.architecture import Architecture, Backbone, Module, Task
from search.sites import Point, Shape, Site, find_stage

if TYPE_CHECKING:
    from torch import nn

COUNTING = 1
"""Raised whenever counting changes, so that stored costs are not mixed."""


@dataclass(frozen=True)
class Cost:
    """params: learned numbers. macs: multiply–adds of one forward pass on one image."""

    params: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.params - other.params, self.macs - other.macs)


class CostStore(Protocol):
    """Where counted costs are kept between processes, by an opaque key."""

    def get(self, key: str) -> Cost | None: ...

    def put(self, key: str, cost: Cost) -> None: ...


class MemoryStore:
    """Costs kept for the life of the process."""

    def __init__(self) -> None:
        self._costs: dict[str, Cost] = {}

    def get(self, key: str) -> Cost | None:
        return self._costs.get(key)

    def put(self, key: str, cost: Cost) -> None:
        self._costs[key] = cost


def count_macs(network: nn.Module, input_shape: Shape) -> int:
    """Multiply–adds of one forward pass (batch 1, eval) of `network`, on the device it is on; imports torch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    parameter = next(network.parameters(), None)
    device = "meta" if parameter is None else parameter.device
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.empty(1, *input_shape, device=device))
    return int(counter.get_total_flops()) // 2


def count(make: Callable[[], Any], input_shape: Shape) -> Cost:
    """The cost of the network that `make` builds, counted on the meta device; imports torch."""
    import torch

    with torch.device("meta"):
        network = make()
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, count_macs(network, input_shape))


class CostTable:
    """The costs of one backbone on one task, of every placement in it, and so of every architecture."""

    def __init__(self, backbone: Backbone, task: Task, store: CostStore | None = None) -> None:
        self._backbone = backbone
        self._task = task
        self._store: CostStore = MemoryStore() if store is None else store
        self._stages = backbone.stages(task.input_shape)
        self._sites: dict[tuple[Site, tuple[Module, ...]], Cost] = {}

    def backbone(self) -> Cost:
        """The backbone without attention."""
        what = {"backbone": self._backbone.to_json(), "input": self._task.input_shape, "classes": self._task.classes}
        info, options = self._backbone.info, self._backbone.options
        channels, classes = self._task.input_shape[0], self._task.classes
        return self._counted(what, lambda: info.build(options, channels, classes), self._task.input_shape)

    def site(self, site: Site, modules: Iterable[Module]) -> Cost:
        """What `modules` at `site` add to the backbone; for `conv`, the new convolution minus the replaced."""
        modules = tuple(modules)
        known = self._sites.get((site, modules))
        if known is None:
            points = find_stage(self._stages, site.stage).points(site)
            known = sum((self._at(point, module) for point in points for module in modules), Cost())
            self._sites[site, modules] = known
        return known

    def architecture(self, architecture: Architecture) -> Cost:
        """The cost of `architecture`, whose backbone must be this table's."""
        if architecture.backbone != self._backbone:
            raise ValueError(f"the table is of {self._backbone.to_json()}, not of {architecture.backbone.to_json()}")
        return sum((self.site(site, modules) for site, modules in architecture.placements), self.backbone())

    def _at(self, point: Point, module: Module) -> Cost:
        what = {"module": module.to_json(), "shape": point.shape, "conv": repr(point.conv)}
        added = self._counted(what, lambda: module.info.build(module.options, point), point.shape)
        return added if point.conv is None else added - self._replaced(point)

    def _replaced(self, point: Point) -> Cost:
        def make() -> Any:
            from search.backbones.layers import conv2d

            assert point.conv is not None
            return conv2d(point.conv)

        return self._counted({"conv": repr(point.conv), "shape": point.shape}, make, point.shape)

    def _counted(self, what: dict[str, Any], make: Callable[[], Any], shape: Shape) -> Cost:
        key = json.dumps({"counting": COUNTING, **what}, sort_keys=True)
        cost = self._store.get(key)
        if cost is None:
            cost = count(make, shape)
            self._store.put(key, cost)
        return cost
