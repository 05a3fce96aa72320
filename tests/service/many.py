"""A finished search with very many trials, written in bulk: what the pages must stay fast for.

Also a small program: python -m tests.service.many DATABASE_URL COUNT
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine, insert, update

from db.engine import make_engine, writing
from db.ids import uuid7
from db.models import Architecture, Epoch, Search, Trial
from db.upgrades import upgrade
from search.space_cost import SpaceCosts
from tests.service.filling import FilledSearch

SPACE = {
    "modules": ["none", "se", "cbam", "bam", ["se", "cbam"]],
    "reduction": [1, 2, 4, 8],
    "pattern": ["every", "first", "last"],
}
WORTH = {"se": 0.004, "cbam": 0.007, "bam": 0.003}
BATCH = 5_000
ENVIRONMENT = {"device": "x" * 1500}
"""As long as a real one, which holds the versions and the whole request."""


def fill_many(engine: Engine, count: int, *, epochs: int = 0, name: str = "a very long search") -> str:
    """The id of a search with `count` explore trials of different architectures; epochs: rows for each of them."""
    search = FilledSearch(engine, name=name, space=SPACE, budget={"trials": count}).claim().controls()
    rng = np.random.default_rng(0)
    genotypes, costs = _drawn(search, rng, count)
    start = datetime.now(UTC) - timedelta(seconds=count)
    fragments = [[_fragment(choice) for choice in gene.choices] for gene in search.plan.space.genes]
    backbone = search.plan.backbone.to_json()
    base = float(costs[:, 1].min())
    for first in range(0, count, BATCH):
        rows: list[dict[str, Any]] = []
        architectures: list[dict[str, Any]] = []
        for place in range(first, min(first + BATCH, count)):
            chosen = [fragments[gene][index] for gene, index in enumerate(genotypes[place])]
            document = {"backbone": backbone, "placements": {k: v for placed, _ in chosen for k, v in placed.items()}}
            key = hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
            architectures.append(
                {"key": key, "backbone": "resnet14", "document": document, "label": f"placement {place}"}
            )
            params, macs = (int(value) for value in costs[place])
            dear = 0.006 * float(np.log1p((macs - base) / 20_000))
            top1 = min(1.0, 0.905 + dear + sum(worth for _, worth in chosen) + float(rng.normal(0, 0.003)))
            rows.append(_trial(search.id, place + 10, key, top1, params, macs, start + timedelta(seconds=place)))
        with writing(engine) as session:
            session.execute(insert(Architecture), architectures)
            session.execute(insert(Trial), rows)
            for row in rows if epochs else []:
                session.execute(insert(Epoch), _epochs(row, epochs))
    with writing(engine) as session:
        session.execute(
            update(Search)
            .where(Search.id == search.id)
            .values(phase="explore", hypervolume=0.95, event_seq=Search.event_seq + 2 * count)
        )
    search.end()
    return search.id


def _drawn(search: FilledSearch, rng: np.random.Generator, count: int) -> tuple[list[tuple[int, ...]], Any]:
    """Different genotypes, none of them a control's, and their costs."""
    sizes = search.plan.space.sizes
    taken = np.unique(rng.integers(0, sizes, size=(int(count * 1.6) + 100, len(sizes))), axis=0)
    controls = {search.plan.space.genotype(a) for role, a in search.plan.controls if role == "baseline"}
    rows = [tuple(int(v) for v in row) for row in rng.permutation(taken)]
    keys = {architecture.key for _, architecture in search.plan.controls}
    wanted = [row for row in rows[: count + 10] if row not in controls]
    wanted = [row for row in wanted if max(row) != min(row) or search.plan.space.architecture(row).key not in keys]
    assert len(wanted) >= count, "the space is too small"
    return wanted[:count], SpaceCosts(search.plan.space, search.table).totals(wanted[:count])


def _fragment(choice: Any) -> tuple[dict[str, Any], float]:
    placed = {str(site): [module.to_json() for module in modules] for site, modules in choice.placements}
    stage = choice.placements[0][0].stage if choice.placements else 0
    return placed, sum(WORTH[kind] for kind in choice.kinds) * stage / 3


def _trial(search_id: str, number: int, key: str, top1: float, params: int, macs: int, at: datetime) -> dict[str, Any]:
    return {
        "id": uuid7(), "search_id": search_id, "number": number, "phase": "explore", "role": "explore",
        "status": "succeeded", "architecture_key": key, "seed": 0, "label": "", "epochs": 8, "epochs_planned": 8,
        "params": params, "macs": macs, "top1": top1, "top5": min(1.0, top1 + 0.05), "loss": 1 - top1,
        "seconds": 12.0, "retries": 0, "metrics": {"macro_f1": top1}, "environment": ENVIRONMENT,
        "started_at": at - timedelta(seconds=12), "finished_at": at,
    }  # fmt: skip


def _epochs(row: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": row["id"], "epoch": epoch, "search_id": row["search_id"], "top1": row["top1"] * epoch / count,
            "train_loss": 1.0 / epoch, "val_loss": 1.1 / epoch, "metrics": {}, "at": row["finished_at"],
        }
        for epoch in range(1, count + 1)
    ]  # fmt: skip


if __name__ == "__main__":
    engine = make_engine(sys.argv[1])
    upgrade(engine)
    print(fill_many(engine, int(sys.argv[2])))
