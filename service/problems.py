"""What a client of the service is told when something went wrong (light: the command line imports it at start)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LATER = frozenset({408, 425, 429, 502, 503, 504})
"""Answers that say: the same request may succeed later."""


class AttuneError(Exception):
    """The service refused, failed or cannot be reached. status: HTTP's, None when there was no answer.

    problems: what is wrong with the request, each {field, message, choices}.
    """

    def __init__(self, message: str, status: int | None = None, problems: tuple[Mapping[str, Any], ...] = ()) -> None:
        self.message = message
        self.status = status
        self.problems = problems
        super().__init__("\n".join([message, *(f"  {line}" for line in self.lines)]))

    @property
    def unreachable(self) -> bool:
        """No service answered, or it cannot work now; trying later may help."""
        return self.status is None or self.status in LATER

    @property
    def lines(self) -> list[str]:
        """The problems, one line each, with the field and the valid choices."""
        return [_line(problem) for problem in self.problems]


def _line(problem: Mapping[str, Any]) -> str:
    text = str(problem.get("message", ""))
    if problem.get("field"):
        text = f"{problem['field']}: {text}"
    choices = problem.get("choices") or ()
    return f"{text} Valid: {', '.join(map(str, choices))}." if choices else text
