"""`python -m workers.data list | check NAME | add NAME PATH`: the operator's look at data sets, as JSON lines.

`attune data` runs it and shows what it says: `{"progress": …}` while it works, then one `{"result": …}` or
`{"error": …}`. Exit code 0: done; 1: a check has found problems; 2: the name or the folder cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.errors import SpecError
from workers.datasets import DatasetError
from workers.datasets.checking import add, check, survey
from workers.training.evaluators import load_plugins

EVERY_SECONDS = 0.2
DONE, PROBLEMS, REFUSED = 0, 1, 2


class Reporter:
    """Writes progress now and then."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def progress(self, doing: str, done: int, total: int) -> None:
        if time.monotonic() - self._told > EVERY_SECONDS:
            self._told = time.monotonic()
            say(progress={"doing": doing, "done": done, "total": total})


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    reporter = Reporter()
    load_plugins()
    try:
        if asked.command == "list":
            say(result=[found.to_json() for found in survey(reporter.progress)])
            return DONE
        if asked.command == "check":
            report = check(asked.name, reporter.progress)
        else:
            report = add(asked.name, Path(asked.path), replace=asked.replace, progress=reporter.progress)
    except (DatasetError, SpecError) as error:
        say(error=str(error))
        return REFUSED
    say(result=report.to_json())
    return PROBLEMS if report.problems else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    checked = commands.add_parser("check")
    checked.add_argument("name")
    added = commands.add_parser("add")
    added.add_argument("name")
    added.add_argument("path")
    added.add_argument("--replace", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
