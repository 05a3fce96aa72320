"""Ready examples: the request of `attune demo`, and others to start a search from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import yaml

from service.examples import find


@dataclass(frozen=True)
class Example:
    """A request as text, and what it is for."""

    name: str
    title: str
    text: str


MODULES = """\
name: which module pays most
dataset: {name: cluttered-digits}
backbone: {name: resnet14, width: 8}
space:
  modules: [none, se, cbam, eca, bam, gc]
  reduction: [2, 4]
  pattern: [every]
budget: {trials: 40}
"""
CONFIRMED = """\
name: CBAM, stage by stage, confirmed
dataset: {name: cluttered-digits}
backbone: {name: resnet14, width: 8}
space:
  modules: [none, cbam]
  reduction: [2, 4, 8]
  pattern: [every, first, last]
budget: {trials: 32}
confirm: {top: 3, seeds: 5}   # the best again with other seeds, on data that the search has not seen
"""
BUDGET = """\
name: the best under a budget of parameters
dataset: {name: cluttered-digits}
backbone: {name: resnet14, width: 8}
space:
  modules: [none, se, {kind: bam, dilation: [2, 4]}, [se, cbam]]   # a list inside: stacked in one block
  reduction: [4, 8]
  pattern: [every, last]
constraints: [{metric: params, at_most: 47000}]
objectives: [{metric: top1}, {metric: params}]
budget: {trials: 48}
"""


@cache
def text(name: str) -> str:
    """The example as it was written, without its opening comment."""
    lines = find(name).read_text(encoding="utf-8").splitlines()
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        lines.pop(0)
    return "\n".join(lines)


@cache
def listed() -> dict[str, Example]:
    """All of them by name, the simplest first."""
    found = (
        Example("demo", "Where do SE and CBAM pay?", text("demo") + "\n"),
        Example("modules", "Which module pays most?", MODULES),
        Example("confirmed", "One module, confirmed with several seeds", CONFIRMED),
        Example("budget", "The best under a budget of parameters", BUDGET),
    )
    return {example.name: example for example in found}


@cache
def as_json(name: str) -> str:
    return json.dumps(yaml.safe_load(text(name)))
