"""A row's version as an ETag, and back from an If-Match header."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from service.errors import bad_field
from service.queries import is_number

IfMatch = Annotated[str | None, Header(max_length=100, description="The ETag that the change is meant for.")]


def etag(version: int) -> str:
    return f'"{version}"'


def version_of(if_match: str | None) -> int | None:
    """The version in an If-Match header. ApiError 400 for something that is no ETag of ours."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip()
    number = text[1:-1]
    if text != f'"{number}"' or not is_number(number):
        raise bad_field(400, "If-Match", "If-Match is not an ETag of this service.")
    return int(number)
