"""What search/ raises at a user: every error names the field and, where there is a list, the valid choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    field: dotted path in the request ("space.modules.1.reduction").
    message: a sentence for the user.
    choices: the valid values, where they can be listed.
    """

    field: str
    message: str
    choices: tuple[str, ...] = ()

    def under(self, prefix: str) -> Problem:
        """The same problem with its field path put below `prefix`."""
        path = ".".join(part for part in (prefix, self.field) if part)
        return Problem(path, self.message, self.choices)

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        return f"{text} Valid choices: {', '.join(self.choices)}." if self.choices else text


class SpecError(ValueError):
    """A request cannot be carried out as written; `problems` says what is wrong, all at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        if not self.problems:
            raise AssertionError("a SpecError needs at least one problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def one(cls, field: str, message: str, choices: Sequence[str] = ()) -> SpecError:
        return cls([Problem(field, message, tuple(choices))])

    def under(self, prefix: str) -> SpecError:
        """The same error with every field path put below `prefix`."""
        return SpecError(problem.under(prefix) for problem in self.problems)


def shown(value: Any, most: int = 60) -> str:
    """What the user wrote, for a message: its repr (which escapes what cannot be printed), cut to `most` characters."""
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
