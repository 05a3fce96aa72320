"""Which split a sample belongs to: a hash of (seed, the sample's identity), so that data may grow and none moves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Shares:
    """Expected shares of the validation and the test split; the rest is for training."""

    validation: float
    test: float


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` only (SHA-256, 64 bits of it)."""
    return derived_seed(*parts) / 2**64


def derived_seed(*parts: object) -> int:
    """A 64-bit seed that depends on `parts` only."""
    digest = hashlib.sha256("\x00".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def split_of(seed: int, identity: str, shares: Shares) -> SplitName:
    """The split of the sample called `identity`, whatever other samples there are."""
    value = unit_hash("split", seed, identity)
    if value < shares.test:
        return "test"
    return "validation" if value < shares.test + shares.validation else "train"


def split_indices(seed: int, identities: Sequence[str], shares: Shares) -> dict[SplitName, list[int]]:
    """The indices of each split, in the order of `identities`."""
    found: dict[SplitName, list[int]] = {"train": [], "validation": [], "test": []}
    for index, identity in enumerate(identities):
        found[split_of(seed, identity, shares)].append(index)
    return found
