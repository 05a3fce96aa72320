"""Where files are in the store: `searches/<search>/<trial>/…`."""

from __future__ import annotations

SEARCHES = "searches"
WEIGHTS = "weights.safetensors"
"""What is left of a finished trial: its network's weights, with its result in the metadata."""
HANG = "hang.txt"
"""Where every thread of a trial was when an epoch took too long."""
LAST_WORDS = "failure.json"
"""Why a trial's process has ended itself."""
QUOTA = "attune-quota.json"
"""At the top of a store that has a quota: how full it is."""


def search_prefix(search_id: str) -> str:
    return f"{SEARCHES}/{search_id}"


def trial_prefix(search_id: str, trial_id: str) -> str:
    return f"{SEARCHES}/{search_id}/{trial_id}"
