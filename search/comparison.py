"""What a repeated search has found that the one before had not: fronts, hypervolume, and whether it is more than noise.

Both fronts are measured with the same bounds. When the data have changed, the earlier front counts with what its
architectures reach on the new data. One seed proves nothing, so a front has "moved" only where architectures that were
trained with several seeds say so, beyond what the seeds' spread explains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from search.metrics import METRICS
from search.pareto import Bounds, front, minimised
from search.resampling import Interval

Verdict = Literal["improved", "worse", "unchanged", "unknown"]
Floats = npt.NDArray[np.float64]
DRAWS = 1000
LEVEL = 0.95
CONFIRM = "confirm"


@dataclass(frozen=True)
class Result:
    """One training of an architecture. values: of the objectives, in their units and order. epochs: it was to last.

    brought: a confirmation for the sake of the search before, of what this search has not chosen.
    """

    key: str
    phase: str
    seed: int
    values: tuple[float, ...]
    epochs: int = 1
    brought: bool = False


@dataclass(frozen=True)
class Comparison:
    """A search beside the one before it.

    before, after: hypervolume of the two fronts, 0 to 1. gained, lost, kept: keys of architectures on the new front
    only, on the old one only, on both. unmeasured: of the old front, without a result on the new data; they count for
    nothing in `before`. moved: the change of the hypervolume of what was trained with several seeds, with its interval
    at 95 %; None where too little was. why: what the verdict rests on.
    """

    same_data: bool
    before: float
    after: float
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    kept: tuple[str, ...]
    unmeasured: tuple[str, ...]
    moved: Interval | None
    verdict: Verdict
    why: str

    @property
    def change(self) -> float:
        return self.after - self.before


def compare(
    bounds: Bounds, before: Sequence[Result], after: Sequence[Result], *, same_data: bool, seed: int = 0
) -> Comparison:
    """The comparison of two searches' results in the newer one's bounds. same_data: both were trained alike on the
    same."""
    new = _single(after)
    new_front = _front(bounds, new)
    old = _single(before)
    old_keys = _front(bounds, old)
    measured = old if same_data else new
    there = [key for key in old_keys if key in measured]
    # on other data an earlier front need not be a front any more
    old_front = there if same_data else _front(bounds, {key: measured[key] for key in there})
    moved, why = _moved(bounds, before, after, same_data, np.random.default_rng(seed))
    return Comparison(
        same_data=same_data,
        before=bounds.hypervolume([measured[key] for key in old_front]) if old_front else 0.0,
        after=bounds.hypervolume([new[key] for key in new_front]) if new_front else 0.0,
        gained=tuple(key for key in new_front if key not in old_keys),
        lost=tuple(key for key in old_keys if key not in new_front),
        kept=tuple(key for key in new_front if key in old_keys),
        unmeasured=tuple(key for key in old_keys if key not in measured),
        moved=moved,
        verdict=_verdict(moved),
        why=why,
    )


def placements(documents: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many of these architectures place what where: "2.1.residual se" → 3. Sites as in an architecture's JSON."""
    found: dict[str, int] = {}
    for document in documents:
        for site, modules in document.get("placements", {}).items():
            name = f"{site} {'+'.join(module['kind'] for module in modules)}"
            found[name] = found.get(name, 0) + 1
    return found


def _verdict(moved: Interval | None) -> Verdict:
    if moved is None:
        return "unknown"
    if not moved.certain:
        return "unchanged"
    return "improved" if moved.low > 0 else "worse"


def _single(results: Sequence[Result]) -> dict[str, tuple[float, ...]]:
    """What the search itself saw of each architecture: its first training that is no confirmation."""
    found: dict[str, tuple[float, ...]] = {}
    for result in results:
        if result.phase != CONFIRM:
            found.setdefault(result.key, result.values)
    return found


def _front(bounds: Bounds, values: Mapping[str, tuple[float, ...]]) -> list[str]:
    keys = list(values)
    if not keys:
        return []
    members = front(minimised([values[key] for key in keys], bounds.objectives)).nonzero()[0].tolist()
    return [keys[place] for place in members]


def _seeds(results: Iterable[Result]) -> dict[str, dict[int, tuple[float, ...]]]:
    """The confirmations of each architecture by seed; the search's own seed chose them and would flatter them."""
    found: dict[str, dict[int, tuple[float, ...]]] = {}
    for result in results:
        if result.phase == CONFIRM:
            found.setdefault(result.key, {})[result.seed] = result.values
    return found


def _moved(
    bounds: Bounds, before: Sequence[Result], after: Sequence[Result], same_data: bool, rng: np.random.Generator
) -> tuple[Interval | None, str]:
    """The change of what was confirmed, and what that rests on; None with the reason where it cannot be told."""
    # what was brought along is measured here, and speaks for the search that chose it
    new, old = ([*_seeds(result for result in side if not result.brought)] for side in (after, before))
    here, there = _seeds(after), _seeds(before)
    if not new or max(len(here[key]) for key in new) < 2:
        return None, "Nothing was confirmed with two seeds or more, so what seeds alone change is not known."
    if not old:
        return None, "The search before confirmed nothing, so there is nothing of its kind to compare with."
    lengths = {result.epochs for result in after if result.phase == CONFIRM}
    other = [*before, *after] if same_data else after
    if any(result.epochs not in lengths for result in other if result.phase == CONFIRM) or len(lengths) > 1:
        return None, "The confirmations were not all trained for as many epochs, so they cannot be compared."
    arms = {key: dict(values) for key, values in here.items()}
    if same_data:
        for key, values in there.items():
            arms[key] = {**values, **arms.get(key, {})}
    missing = sum(key not in arms for key in old)
    if missing:
        of = f"{missing} of the architectures confirmed before {'has' if missing == 1 else 'have'}"
        return None, f"{of} not been confirmed again in this search."
    means, errors = _moments(bounds, arms, rng)
    places = {key: place for place, key in enumerate(arms)}
    sides = [np.asarray([places[key] for key in side]) for side in (old, new)]
    volumes = [_volumes(bounds, means, errors, side) for side in sides]
    change = volumes[1] - volumes[0]
    low, high = np.quantile(change[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    noun = "architecture" if len(new) == 1 else "architectures"
    why = f"{len(new)} {noun} with several seeds beside {len(old)} of the search before."
    return Interval(float(change[0]), float(low), float(high)), why


def _moments(
    bounds: Bounds, arms: Mapping[str, Mapping[int, tuple[float, ...]]], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Means (arms × objectives), and errors as they may be (draws × arms × objectives).

    One spread for each quality objective, pooled over the arms with several seeds; that it is itself estimated is
    drawn with it (χ² of the pooled freedom). Costs are exact.
    """
    tables = [np.asarray(list(values.values()), dtype=np.float64) for values in arms.values()]
    means = np.stack([table.mean(axis=0) for table in tables])
    counts = np.asarray([len(table) for table in tables])
    freedom = int((counts - 1).sum())
    squares = sum(((table - table.mean(axis=0)) ** 2).sum(axis=0) for table in tables)
    spread = np.sqrt(squares / freedom)
    spread = np.where([METRICS[o.metric].kind == "quality" for o in bounds.objectives], spread, 0.0)
    scale = np.sqrt(freedom / rng.chisquare(freedom, DRAWS))
    noise = rng.standard_normal((DRAWS, *means.shape))
    errors: Floats = noise * scale[:, None, None] * spread / np.sqrt(counts)[None, :, None]
    return means, errors


def _volumes(bounds: Bounds, means: Floats, errors: Floats, side: npt.NDArray[np.int64]) -> Floats:
    """Hypervolumes of a side: as measured first, then with each draw of the errors."""
    drawn = [bounds.hypervolume(means[side])]
    drawn += [bounds.hypervolume(means[side] + error[side]) for error in errors]
    return np.asarray(drawn)
