"""Query strings, strictly: a parameter that the route does not know, or that comes twice, is an error, not a shrug."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, get_origin

from fastapi import Query
from starlette.requests import Request

from search.errors import Problem
from service.errors import ApiError, bad_field

Limit = Annotated[int, Query(ge=1, le=200, description="Items on a page.")]
CursorText = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before.")]


async def strict_query(request: Request) -> None:
    """A dependency of the whole application. ApiError 422 naming every parameter that is wrong."""
    problems = list(_problems(request))
    if problems:
        raise ApiError(422, f"{problems[0].field}: {problems[0].message}", problems)


def _problems(request: Request) -> Iterator[Problem]:
    known = dict(_parameters(getattr(request.scope.get("route"), "dependant", None)))
    given = request.query_params.multi_items()
    for name, times in Counter(name for name, _ in given).items():
        if name not in known:
            yield Problem(name, "Unknown parameter.", tuple(sorted(known)))
        elif times > 1 and not known[name]:
            yield Problem(name, "The parameter may be given once.")
    for name, value in given:
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            yield Problem(name, "NUL characters and lone surrogates are not allowed.")


def _parameters(dependant: Any) -> Iterator[tuple[str, bool]]:
    """The query parameters of a route and its dependencies, and whether each may be repeated."""
    if dependant is None:
        return
    for field in dependant.query_params:
        annotation = field.field_info.annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        yield field.alias, any(get_origin(kind) in (list, tuple, set) for kind in inner)
    for part in dependant.dependencies:
        yield from _parameters(part)


def is_number(text: str) -> bool:
    """Whether `text` is a plain non-negative integer of reasonable length."""
    return text.isascii() and text.isdigit() and len(text) < 11


def sorting(text: str, choices: tuple[str, ...]) -> tuple[str, bool]:
    """`-name` as (name, descending). ApiError 422 listing what can be sorted by."""
    name = text.removeprefix("-")
    if name not in choices:
        raise bad_field(422, "sort", "Not something to sort by.", choices)
    return name, text.startswith("-")


def words(text: str | None, field: str, choices: tuple[str, ...]) -> tuple[str, ...] | None:
    """Comma-separated words. ApiError 422 listing the valid ones."""
    if text is None:
        return None
    found = tuple(part.strip() for part in text.split(","))
    if not set(found) <= set(choices):
        raise bad_field(422, field, "Not one of the valid choices.", choices)
    return found
