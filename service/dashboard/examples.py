"""The ready example: the request of `attune demo`, offered where there is nothing to show yet."""

from __future__ import annotations

import json
from functools import cache

import yaml

from service.examples import find


@cache
def text(name: str) -> str:
    """The example as it was written, without its opening comment."""
    lines = find(name).read_text(encoding="utf-8").splitlines()
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        lines.pop(0)
    return "\n".join(lines)


@cache
def as_json(name: str) -> str:
    return json.dumps(yaml.safe_load(text(name)))
