"""The literature's rows as reference points, and what attune counts for the same architectures.

The data are `data/published.csv`: what was printed (costs with all their digits, metrics as fractions, errors
turned into accuracies), where it was read, and, where an architecture of ours is the same, how to build it.
Where a paper's cost does not follow from its own text, the row says why; formulas are never bent to hit it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from search.architecture import Architecture, Backbone, Module, Task
from search.cost import CostStore, CostTable, MemoryStore
from search.sites import Position, Site

IMAGENET = Task((3, 224, 224), 1000)
METRICS = ("top1", "top5", "box_ap", "ap50", "ap75", "mask_ap", "miou")


@dataclass(frozen=True)
class PublishedRow:
    """One line of a table.

    params_m, gmacs: as printed, in 10⁶ and 10⁹ multiply–adds ("GFLOPs" in the papers).
    metrics: fractions, by name (METRICS). recomputed_…: counted independently of attune, without its code.
    params_deviation, gmacs_deviation: why the printed number is not the one that follows from the text; "" if it is.
    rebuild: backbone, modules by position and stages (none: all) of the same architecture in attune, if it has it.
    """

    source: str
    backbone: str
    dataset: str
    module: str
    placement: str
    reduction: int | None
    params_m: Decimal | None
    gmacs: Decimal | None
    metrics: Mapping[str, float]
    recomputed_params_m: Decimal | None
    recomputed_gmacs: Decimal | None
    params_deviation: str
    gmacs_deviation: str
    seen_in: str
    note: str
    rebuild: Mapping[str, Any] | None

    def architecture(self) -> Architecture | None:
        """The same architecture in attune: the modules in every block of the stages, at their positions."""
        if self.rebuild is None:
            return None
        backbone = Backbone.make(**self.rebuild["backbone"])
        modules: dict[Position, list[Module]] = {
            position: [Module.make(**module) for module in listed]
            for position, listed in self.rebuild["modules"].items()
        }
        chosen = self.rebuild.get("stages")
        return Architecture.make(
            backbone,
            {
                Site(stage.number, number, position): placed
                for stage in backbone.stages(IMAGENET.input_shape)
                if chosen is None or stage.number in chosen
                for number, block in enumerate(stage.blocks, start=1)
                for position, placed in modules.items()
                if position in block.points
            },
        )

    def to_json(self) -> dict[str, Any]:
        """For the catalog: printed costs as numbers, and without how to rebuild it."""
        data = asdict(self)
        del data["rebuild"]
        return {name: float(value) if isinstance(value, Decimal) else value for name, value in data.items()}


@dataclass(frozen=True)
class Comparison:
    """One printed cost beside ours. ours: rounded to the digits that were printed."""

    printed: Decimal
    ours: Decimal
    reason: str

    @property
    def verdict(self) -> Literal["exact", "deviates"]:
        return "exact" if self.ours == self.printed else "deviates"

    def to_json(self) -> dict[str, Any]:
        """Numbers as numbers; a reason only where there is something to explain."""
        reason = self.reason if self.verdict == "deviates" else ""
        return {"printed": float(self.printed), "ours": float(self.ours), "verdict": self.verdict, "reason": reason}


@dataclass(frozen=True)
class Check:
    """A row beside what attune counts. params, macs: None where attune does not build the same architecture.

    params_m, gmacs: None where there is nothing to compare: not printed, or not built.
    """

    row: PublishedRow
    params: int | None = None
    macs: int | None = None
    params_m: Comparison | None = None
    gmacs: Comparison | None = None

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(one for one in (self.params_m, self.gmacs) if one is not None)

    @property
    def unexplained(self) -> bool:
        """Whether a printed cost differs from ours and the row does not say why."""
        return any(one.verdict == "deviates" and not one.reason for one in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """What was printed, ours, the verdict and the reason, for the catalog."""
        compared = {"params_m": self.params_m, "gmacs": self.gmacs}
        told = {name: None if one is None else one.to_json() for name, one in compared.items()}
        return {"params": self.params, "macs": self.macs, **told}


@cache
def published() -> tuple[PublishedRow, ...]:
    """Every row, in the order of the file."""
    text = (files("search") / "data" / "published.csv").read_text(encoding="utf-8")
    return tuple(_row(line) for line in csv.DictReader(text.splitlines()))


def check(store: CostStore | None = None) -> Iterator[Check]:
    """Every row beside ours, in the order of the file (imports torch to count).

    store: where counted costs are kept; by default they are forgotten.
    """
    store = MemoryStore() if store is None else store
    for row in published():
        architecture = row.architecture()
        if architecture is None:
            yield Check(row)
            continue
        cost = CostTable(architecture.backbone, IMAGENET, store).architecture(architecture)
        params_m = _compare(row.params_m, cost.params, 6, row.params_deviation)
        gmacs = _compare(row.gmacs, cost.macs, 9, row.gmacs_deviation)
        yield Check(row, cost.params, cost.macs, params_m, gmacs)


def _compare(printed: Decimal | None, ours: int, exponent: int, reason: str) -> Comparison | None:
    if printed is None:
        return None
    return Comparison(printed, Decimal(ours).scaleb(-exponent).quantize(printed), reason)


def _row(line: Mapping[str, str]) -> PublishedRow:
    def number(name: str) -> Decimal | None:
        return Decimal(line[name]) if line[name] else None

    return PublishedRow(
        source=line["source"],
        backbone=line["backbone"],
        dataset=line["dataset"],
        module=line["module"],
        placement=line["placement"],
        reduction=int(line["reduction"]) if line["reduction"] else None,
        params_m=number("params_m"),
        gmacs=number("gmacs"),
        metrics={name: float(line[name]) for name in METRICS if line[name]},
        recomputed_params_m=number("recomputed_params_m"),
        recomputed_gmacs=number("recomputed_gmacs"),
        params_deviation=line["params_deviation"],
        gmacs_deviation=line["gmacs_deviation"],
        seen_in=line["seen_in"],
        note=line["note"],
        rebuild=json.loads(line["rebuild"]) if line["rebuild"] else None,
    )
