"""Exact cost in parameters and multiply–adds, additive over sites.

A module keeps its input's shape, so an architecture costs its backbone plus a sum over its placements. Each
(module, shape) is counted once on the meta device with `torch.utils.flop_counter`; from then on costs
are table sums. Multiply–adds are those of convolutions and matrix products, as the papers count "FLOPs".
Torch is imported only when something has to be counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Protocol

from search.architecture import Architecture, Backbone, Module, Placement, Task
from search.sites import ConvGeometry, Point, Shape, Site, find_stage

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


def count(make: Callable[[], Any], input_shape: Shape) -> Cost:
    """The cost of the network that `make` builds (imports torch)."""
    from search import counting

    network = counting.on_meta(make)
    return Cost(counting.parameters(network), counting.macs(network, input_shape))


class CostTable:
    """The costs of one backbone on one task, of every placement in it, and so of every architecture."""

    def __init__(self, backbone: Backbone, task: Task, store: CostStore | None = None) -> None:
        self._backbone = backbone
        self._task = task
        self._store: CostStore = MemoryStore() if store is None else store
        self._stages = backbone.stages(task.input_shape)
        self._sites: dict[Placement, Cost] = {}
        self._points: dict[tuple[Point, Module], Cost] = {}
        self._kept: dict[tuple[Point, Module], int] = {}
        self._base: Cost | None = None

    def backbone(self) -> Cost:
        """The backbone without attention."""
        if self._base is None:
            key = _key(backbone=self._backbone.to_json(), input=self._task.input_shape, classes=self._task.classes)
            self._base = self._counted(key, self._make_backbone, self._task.input_shape)
        return self._base

    def site(self, site: Site, modules: Iterable[Module]) -> Cost:
        """What `modules` at `site` add to the backbone; for `conv`, the new convolution minus the replaced."""
        placement = (site, tuple(modules))
        cost = self._sites.get(placement)
        if cost is None:
            cost = sum((self._at(point, module) for module in placement[1] for point in self._at_site(site)), Cost())
            self._sites[placement] = cost
        return cost

    def placements(self, placements: Iterable[Placement]) -> Cost:
        """What `placements` add to the backbone together."""
        params = macs = 0
        for site, modules in placements:
            cost = self.site(site, modules)
            params += cost.params
            macs += cost.macs
        return Cost(params, macs)

    def architecture(self, architecture: Architecture) -> Cost:
        """The cost of `architecture`, whose backbone must be this table's."""
        if architecture.backbone != self._backbone:
            raise ValueError(f"the table is of {self._backbone.to_json()}, not of {architecture.backbone.to_json()}")
        return self.backbone() + self.placements(architecture.placements)

    def activation_bytes(self, site: Site, modules: Iterable[Module]) -> int:
        """Bytes that `modules` at `site` keep for the backward pass, for each image of a batch in float32.

        Each module by itself, its input included where it is kept; a replaced convolution is not subtracted.
        """
        from search import counting

        total = 0
        for module, point in product(tuple(modules), self._at_site(site)):
            if (point, module) not in self._kept:
                network = counting.on_meta(partial(module.info.build, module.options, point))
                self._kept[point, module] = counting.activation_bytes(network, point.shape)
            total += self._kept[point, module]
        return total

    def activations(self, architecture: Architecture) -> int:
        """The sum of `activation_bytes` over the placements of `architecture`."""
        return sum(self.activation_bytes(site, modules) for site, modules in architecture.placements)

    def _at_site(self, site: Site) -> tuple[Point, ...]:
        return find_stage(self._stages, site.stage).points(site)

    def _at(self, point: Point, module: Module) -> Cost:
        cost = self._points.get((point, module))
        if cost is None:
            key = _key(module=module.to_json(), shape=point.shape, conv=repr(point.conv))
            cost = self._counted(key, partial(module.info.build, module.options, point), point.shape)
            if point.conv is not None:
                cost -= self._replaced(point.conv, point.shape)
            self._points[point, module] = cost
        return cost

    def _replaced(self, conv: ConvGeometry, shape: Shape) -> Cost:
        def make() -> Any:
            from search.backbones.layers import conv2d

            return conv2d(conv)

        return self._counted(_key(conv=repr(conv), shape=shape), make, shape)

    def _make_backbone(self) -> Any:
        return self._backbone.info.build(self._backbone.options, self._task.input_shape[0], self._task.classes)

    def _counted(self, key: str, make: Callable[[], Any], shape: Shape) -> Cost:
        cost = self._store.get(key)
        if cost is None:
            cost = count(make, shape)
            self._store.put(key, cost)
        return cost


def _key(**what: Any) -> str:
    return json.dumps({"counting": COUNTING, **what}, sort_keys=True)
