"""What the command line says when something is wrong, and the exit codes that scripts can use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from service.problems import AttuneError

OK, SEARCH_FAILED, BAD_INPUT, UNREACHABLE = 0, 1, 2, 3


class Group(TyperGroup):
    """Turns the errors that a user can do something about into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from db.errors import DatabaseUnavailable
        from search.errors import SpecError
        from service.problems import AttuneError

        try:
            return super().invoke(ctx)
        except AttuneError as error:
            tell(*_told(error))
            raise typer.Exit(UNREACHABLE if error.unreachable or (error.status or 0) >= 500 else BAD_INPUT) from None
        except DatabaseUnavailable:
            # without the driver's words, which may name who connects with what
            tell("The database cannot be used: ATTUNE_DATABASE_URL names none that answers and has room.")
            raise typer.Exit(UNREACHABLE) from None
        except SpecError as error:
            tell("This cannot be done as asked:", map(str, error.problems))
            raise typer.Exit(BAD_INPUT) from None


def _told(error: AttuneError) -> tuple[str, list[str]]:
    """Message and further lines; the service's message repeats its first problem, which is said once here."""
    match error.lines:
        case []:
            return error.message, []
        case [line]:
            return line, []
        case lines:
            return f"{len(lines)} things are wrong with the request:", lines


def refuse(message: str, lines: Iterable[str] = ()) -> typer.Exit:
    """Prints what is wrong with the input, for `raise refuse(...)`."""
    tell(message, lines)
    return typer.Exit(BAD_INPUT)


def tell(message: str, lines: Iterable[str] = ()) -> None:
    """Prints a failure to the standard error."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("✗ ", style="bold red") + Text(message))
    for line in lines:
        console.print(Text(f"  • {line}"))


def tell_waiting(error: AttuneError) -> None:
    """Prints that a request waits for the service; it goes on by itself."""
    typer.echo(f"{error.message}\nTrying again for a while; Ctrl-C stops.", err=True)
