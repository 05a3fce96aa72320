"""The comparison of a repeated search with the one before as one document: for the API, the page and the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from search.comparison import CONFIRM, Comparison, Result, compare, placements
from search.metrics import METRICS, is_speed
from search.pareto import Bounds

TRAINING = ("recipe", "weights", "version")
"""What of the conditions of a result is neither the data, nor the seed, nor what is measured."""


class Measured(Protocol):
    """A trial with a result. values: of the metrics asked for."""

    @property
    def trial_id(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def phase(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def epochs(self) -> int: ...

    @property
    def brought(self) -> bool: ...

    @property
    def values(self) -> tuple[float, ...]: ...


class Source(Protocol):
    """A search. bounds: rows as `Bounds.to_json` gives them, None before its start."""

    @property
    def search_id(self) -> str: ...

    def bounds(self) -> Sequence[Mapping[str, Any]] | None: ...

    def fingerprint(self) -> str | None: ...

    def conditions(self, *, confirm: bool) -> Mapping[str, Any] | None: ...

    def device(self) -> str | None: ...

    def everything(self, metrics: Sequence[str]) -> Sequence[Measured]: ...

    def documents(self, keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]: ...


def report(newer: Source, older: Source) -> dict[str, Any]:
    """What the newer search has found beside the older one; says why where the two cannot be compared."""
    told: dict[str, Any] = {"search_id": newer.search_id, "previous_search_id": older.search_id}
    rows, earlier_rows = newer.bounds(), older.bounds()
    if rows is None or earlier_rows is None:
        return told | {"comparable": False, "reason": "One of the two searches has never started."}
    bounds = Bounds.from_json(rows)
    if Bounds.from_json(earlier_rows).objectives != bounds.objectives:
        return told | {"comparable": False, "reason": "The objectives have changed since."}
    metrics = [objective.metric for objective in bounds.objectives]
    if any(is_speed(name) for name in metrics) and newer.device() != older.device():
        return told | {"comparable": False, "reason": f"Timed on {newer.device()}, the one before on {older.device()}."}
    new, old = newer.everything(metrics), older.everything(metrics)
    known = (newer.fingerprint(), older.fingerprint())
    same_data = None in known or known[0] == known[1]
    alike = _trained_alike(newer, older)
    found = compare(bounds, _results(old), _results(new), same_data=same_data and alike)
    told |= {"comparable": True, "reason": None, "data_changed": not same_data, "training_changed": not alike}
    return told | _told(found, bounds, newer, older, new, old)


def _trained_alike(newer: Source, older: Source) -> bool:
    """Whether the same architecture would have come to the same result in both, but for the data and the seed."""
    for confirm in (False, True):
        now, then = newer.conditions(confirm=confirm), older.conditions(confirm=confirm)
        if now and then and any(now.get(name) != then.get(name) for name in TRAINING):
            return False
    return True


def sentence(told: Mapping[str, Any]) -> str:
    """The report in one or two sentences."""
    if not told["comparable"]:
        return f"Not comparable with the search before: {told['reason']}"
    volume, moved = told["hypervolume"], told["moved"]
    words = {
        "improved": "The front has moved forward, beyond what seeds explain",
        "worse": "The front has fallen back, beyond what seeds explain",
        "unchanged": "The front has not moved beyond what seeds explain",
        "unknown": "Whether the front has moved cannot be told",
    }[moved["verdict"]]
    numbers = f"hypervolume {volume['before']:.4f} → {volume['after']:.4f}"
    points = f"{_count(told['gained'], 'architecture')} gained, {len(told['lost'])} lost"
    names = {"data_changed": "on data that have changed", "training_changed": "trained otherwise than before"}
    changes = [phrase for name, phrase in names.items() if told.get(name)]
    changed = f" ({', '.join(changes)})" if changes else ""
    return f"{words}{changed}: {numbers}; {points}.{_unmeasured(told.get('unmeasured', ()))}"


def _unmeasured(points: Sequence[object]) -> str:
    if not points:
        return ""
    verbs = ("has", "counts") if len(points) == 1 else ("have", "count")
    return f" Of the front before {len(points)} {verbs[0]} not been measured again and {verbs[1]} for nothing."


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _results(rows: Sequence[Measured]) -> list[Result]:
    return [Result(row.key, row.phase, row.seed, row.values, row.epochs, row.brought) for row in rows]


def _told(
    found: Comparison, bounds: Bounds, newer: Source, older: Source, new: Sequence[Measured], old: Sequence[Measured]
) -> dict[str, Any]:
    metrics = [objective.metric for objective in bounds.objectives]
    new_documents = newer.documents([*found.gained, *found.kept])
    old_documents = older.documents([*found.lost, *found.kept])
    now, then = placements(new_documents.values()), placements(old_documents.values())
    moved = None if found.moved is None else (found.moved.value, found.moved.low, found.moved.high)
    change = {} if moved is None else dict(zip(("value", "low", "high"), moved, strict=True))
    return {
        "objectives": [
            {"metric": o.metric, "goal": o.goal, "title": METRICS[o.metric].title} for o in bounds.objectives
        ],
        "reference_point": bounds.reference_point,
        "hypervolume": {"before": found.before, "after": found.after, "change": found.change},
        "moved": {"verdict": found.verdict, "why": found.why, "value": None, "low": None, "high": None} | change,
        "gained": _points(found.gained, new, newer.search_id, metrics),
        "lost": _points(found.lost, old, older.search_id, metrics),
        "kept": _points(found.kept, new, newer.search_id, metrics),
        "unmeasured": _points(found.unmeasured, old, older.search_id, metrics),
        "entered": _changed(now, then),
        "left": _changed(then, now),
    }


def _points(
    keys: Sequence[str], rows: Sequence[Measured], search_id: str, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    first: dict[str, Measured] = {}
    for row in rows:
        if row.phase != CONFIRM:
            first.setdefault(row.key, row)
    return [
        {
            "key": key,
            "label": first[key].label,
            "trial_id": first[key].trial_id,
            "search_id": search_id,
            "values": dict(zip(metrics, first[key].values, strict=True)),
        }
        for key in keys
    ]


def _changed(now: Mapping[str, int], then: Mapping[str, int]) -> list[dict[str, Any]]:
    """Placements of one front that the other has nowhere, the most used first."""
    fresh = sorted(((count, name) for name, count in now.items() if name not in then), key=lambda x: (-x[0], x[1]))
    parts = [(*name.split(" ", 1), count) for count, name in fresh]
    return [{"site": site, "modules": modules, "architectures": count} for site, modules, count in parts]
