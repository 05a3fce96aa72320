"""What holds after every fault: read from the database and from the process table, with queries of their own.

Every search ends in exactly one terminal state; no row is doubled; no committed result is lost; nothing that was
started for a search is left behind.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, text

from db.engine import reading
from tests.e2e.house import House, until
from workers.storage.local import PARTIAL

TERMINAL = ("succeeded", "failed", "cancelled")
RESULTS = ("succeeded", "reused")
SETTLE_SECONDS = 30.0
"""What processes may take to go after the last search has ended, on a machine that others keep busy."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Committed:
    """What was finished at one moment: trials with results, and the epochs of all trials."""

    trials: Mapping[str, Row]
    epochs: Mapping[tuple[str, int], float | None]


def committed(engine: Engine) -> Committed:
    """To be compared with what is there after a fault."""
    trials = {row["id"]: row for row in rows(engine, "SELECT * FROM trials") if row["status"] in RESULTS}
    kept = ("search_id", "number", "phase", "architecture_key", "seed", "status", "top1", "epochs", "finished_at")
    epochs = rows(engine, "SELECT trial_id, epoch, top1 FROM epochs")
    return Committed(
        {key: {name: row[name] for name in kept} for key, row in trials.items()},
        {(row["trial_id"], row["epoch"]): row["top1"] for row in epochs},
    )


def check(house: House, before: Committed | None = None, promised: Mapping[str, str] | None = None) -> None:
    """AssertionError with everything that is wrong.

    before: what must still be there. promised: statuses by search, where a row promises another than a terminal one.
    """
    wrong = [*database_violations(house.engine, before, promised or {}), *leftovers(house)]
    assert not wrong, "\n".join(wrong)


def database_violations(
    engine: Engine, before: Committed | None = None, promised: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong in the database, one line each."""
    searches = {row["id"]: row for row in rows(engine, "SELECT * FROM searches")}
    trials = rows(engine, "SELECT * FROM trials ORDER BY search_id, number")
    epochs = rows(engine, "SELECT search_id, trial_id, epoch, top1 FROM epochs ORDER BY trial_id, epoch")
    finished = {key for key, row in searches.items() if row["status"] in TERMINAL}
    return [
        *_states(searches, promised or {}),
        *_stories(engine, searches),
        *_doubled(trials, epochs),
        *_trials(trials, epochs, finished),
        *_claims(engine, trials, finished),
        *([] if before is None else lost(engine, before)),
    ]


def leftovers(house: House) -> list[str]:
    """What is left of ended searches: drivers, trial processes, temporary folders, files that somebody began to write
    and never finished. Waits for them to go."""
    with suppress(TimeoutError):
        until(lambda: not _left(house), SETTLE_SECONDS)
    return _left(house)


def _states(searches: Mapping[str, Row], promised: Mapping[str, str]) -> list[str]:
    wrong = []
    for key, row in searches.items():
        expected = [promised[key]] if key in promised else TERMINAL
        if row["status"] not in expected:
            wrong.append(f"search {row['name']}: {row['status']} instead of {' or '.join(expected)}")
        if row["status"] in TERMINAL and (row["lease_owner"] is not None or row["finished_at"] is None):
            wrong.append(f"search {row['name']}: {row['status']}, but leased or without an end")
    return wrong


def _stories(engine: Engine, searches: Mapping[str, Row]) -> list[str]:
    """Events are numbered without a gap, and tell of one end, of the state that the search is in."""
    told: dict[str, list[Row]] = defaultdict(list)
    for row in rows(engine, "SELECT search_id, seq, kind, data FROM events ORDER BY search_id, seq"):
        told[row["search_id"]].append(row)
    wrong = []
    for key, search in searches.items():
        numbers = [row["seq"] for row in told[key]]
        if numbers != list(range(1, search["event_seq"] + 1)):
            wrong.append(f"search {search['name']}: events are numbered {numbers}")
        ends = [from_json(row["data"]) for row in told[key] if row["kind"] == "trial.finished"]
        often = Counter(end["trial_id"] for end in ends if end["status"] in RESULTS)
        wrong += [f"trial {trial} has ended with a result {n} times" for trial, n in often.items() if n > 1]
        statuses = [from_json(row["data"])["status"] for row in told[key] if row["kind"] == "search.status"]
        after_end = [b for a, b in itertools.pairwise(statuses) if a in TERMINAL and b != "queued"]
        if after_end:
            wrong.append(f"search {search['name']}: went on after its end: {statuses}")
        if search["status"] in TERMINAL and statuses[-1:] != [search["status"]]:
            wrong.append(f"search {search['name']}: is {search['status']}, but events say {statuses}")
    return wrong


def _doubled(trials: list[Row], epochs: list[Row]) -> list[str]:
    once = Counter((row["search_id"], row["phase"], row["architecture_key"], row["seed"]) for row in trials)
    epoch_once = Counter((row["search_id"], row["trial_id"], row["epoch"]) for row in epochs)
    wrong = [f"trial {key} is there {count} times" for key, count in once.items() if count > 1]
    wrong += [f"epoch {key} is there {count} times" for key, count in epoch_once.items() if count > 1]
    numbers: dict[str, list[int]] = defaultdict(list)
    for row in trials:
        numbers[row["search_id"]].append(row["number"])
    wrong += [f"search {key}: trials are numbered {n}" for key, n in numbers.items() if n != [*range(1, len(n) + 1)]]
    return wrong


def _trials(trials: list[Row], epochs: list[Row], finished: Collection[str]) -> list[str]:
    of_trial: dict[str, list[Row]] = defaultdict(list)
    for row in epochs:
        of_trial[row["trial_id"]].append(row)
    wrong = []
    for row in trials:
        name = f"trial {row['number']} of {row['search_id']}"
        found = [epoch["epoch"] for epoch in of_trial[row["id"]]]
        if row["search_id"] in finished and row["status"] == "running":
            wrong.append(f"{name}: runs although its search has ended")
        if row["status"] == "succeeded" and found != list(range(1, row["epochs"] + 1)):
            wrong.append(f"{name}: {row['epochs']} epochs, but rows for {found}")
        if row["status"] in RESULTS and (row["top1"] is None or row["finished_at"] is None):
            wrong.append(f"{name}: {row['status']} without a result")
        if row["status"] in ("failed", "cancelled") and row["top1"] is not None:
            wrong.append(f"{name}: {row['status']}, but with a result")
        if row["status"] == "failed" and not (from_json(row["error"]) or {}).get("kind"):
            wrong.append(f"{name}: failed without a reason")
        for number in (row["top1"], row["loss"], *(epoch["top1"] for epoch in of_trial[row["id"]])):
            if number is not None and not math.isfinite(number):
                wrong.append(f"{name}: holds {number}")
    return wrong


def _claims(engine: Engine, trials: list[Row], finished: Collection[str]) -> list[str]:
    wrong = []
    succeeded = {row["id"] for row in trials if row["status"] == "succeeded"}
    for row in rows(engine, "SELECT * FROM evaluations"):
        if row["status"] == "claimed" and row["claimed_by"] in finished:
            wrong.append(f"evaluation {row['key'][:8]}: still claimed by {row['claimed_by']}, which has ended")
        if row["status"] == "finished" and row["trial_id"] not in succeeded:
            wrong.append(f"evaluation {row['key'][:8]}: finished by a trial that has not succeeded")
    return wrong


def lost(engine: Engine, before: Committed) -> list[str]:
    """What was committed and is gone or another one; may be asked while searches run."""
    now = committed(engine)
    wrong = [
        f"trial {row['number']} of {row['search_id']}: was {row}, is {now.trials.get(key)}"
        for key, row in before.trials.items()
        if now.trials.get(key) != row
    ]
    return wrong + [f"epoch {key} is lost" for key in before.epochs if key not in now.epochs]


def _left(house: House) -> list[str]:
    wrong = [f"trial process {p.pid} is left" for p in house.ray.trial_processes()] if house.ray else []
    dispatchers = {p.pid for name, p in house.processes.items() if "dispatcher" in name and p.poll() is None}
    spare: Counter[int] = Counter()
    drivers = house.drivers()
    for process in drivers:
        with suppress(psutil.NoSuchProcess):
            parent = process.ppid()
            spare[parent] += 1
            if parent not in dispatchers:
                wrong.append(f"driver {process.pid} is left, a child of {parent}")
            elif spare[parent] > 1:
                wrong.append(f"driver {process.pid} is left: dispatcher {parent} has another spare one")
    living = {str(process.pid) for process in drivers}
    for path in sorted(house.temp.glob("*")) if house.temp.exists() else []:
        shared = path.name.startswith("torchinductor_")  # torch's own cache, for all processes of a user
        if not shared and not living & set(path.name.split("-")):
            wrong.append(f"temporary {path.name} is left")
    return wrong + [f"partial file {name} is left" for name in partial_files(house.home)]


def rows(engine: Engine, statement: str) -> list[Row]:
    with reading(engine) as session:
        return [dict(row) for row in session.execute(text(statement)).mappings()]


def from_json(value: Any) -> Any:
    """SQLite gives JSON as text."""
    return json.loads(value) if isinstance(value, str) else value


def partial_files(folder: Path) -> list[str]:
    """Files of the store that somebody began to write and never finished."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f"*{PARTIAL}"))
