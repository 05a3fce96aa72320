"""What a soak does when, all of it drawn from its seed: which faults, and which searches."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from service.client import Client
from service.problems import AttuneError
from tests.faults.invariants import TERMINAL
from tests.faults.searches import troubled

EVERY = 7.0
"""Seconds between two faults, on average."""
LONGEST_AWAY = 6.0
"""Seconds until what was killed is started again: up to more than a lease."""
UNFINISHED = 2
"""There are always so many searches to do at least, so that faults do not meet an empty house."""


@dataclass(frozen=True)
class Fault:
    """at: seconds after the start. draw: which of those that there are, from 0 to 1. away: seconds to the restart."""

    at: float
    kind: str
    draw: float
    away: float


def plan(seed: int, seconds: float, kinds: Sequence[str]) -> list[Fault]:
    """The faults of a run: every kind in turn, each time in another order."""
    chance = random.Random(seed)
    found: list[Fault] = []
    waiting: list[str] = []
    at = EVERY
    while at < seconds:
        waiting = waiting or chance.sample(kinds, len(kinds))
        found.append(Fault(at, waiting.pop(), chance.random(), chance.uniform(0, LONGEST_AWAY)))
        at += chance.uniform(0.3, 1.7) * EVERY
    return found


def request(seed: int, number: int) -> dict[str, Any]:
    """The search with this number."""
    chance = random.Random(f"{seed}/{number}")
    spec = troubled(epochs=chance.randint(1, 4), trials=chance.randint(2, 7), seconds=chance.uniform(0.1, 1.0))
    return {**spec, "name": f"soak {number}"}


class Submitter(threading.Thread):
    """A user who submits searches, with a key for each, and repeats what was not answered.

    found: ids that were answered, by the number of the search.
    """

    def __init__(self, url: str, seed: int, count: int, seconds: float) -> None:
        super().__init__(name="submitter", daemon=True)
        self.found: dict[int, str] = {}
        self.specs: dict[int, dict[str, Any]] = {}
        self.problem: BaseException | None = None
        self._url, self._seed, self._count, self._seconds = url, seed, count, seconds

    def run(self) -> None:
        try:
            with Client(self._url) as client:
                self._submit_all(client)
        except BaseException as error:  # noqa: BLE001 - the main thread tells it
            self.problem = error

    def _submit_all(self, client: Client) -> None:
        began = time.monotonic()
        while time.monotonic() - began < self._seconds or len(self.found) < self._count:
            due = began + len(self.found) * 0.8 * self._seconds / self._count
            if time.monotonic() < due and self._unfinished(client) >= UNFINISHED:
                time.sleep(0.5)
                continue
            number = len(self.found) + 1
            self.specs[number] = self.specs.get(number) or request(self._seed, number)
            with suppress(AttuneError):  # away for longer than a client waits: the same again, with the same key
                self.found[number] = client.submit(self.specs[number], f"soak-{number}")["id"]

    def _unfinished(self, client: Client) -> int:
        try:
            return sum(search["status"] not in TERMINAL for search in client.searches())
        except AttuneError:
            return UNFINISHED
