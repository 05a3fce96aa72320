"""The body of a request as JSON, strictly: RFC 8259 with the limits of RFC 7493, no silent repair.

Frameworks' parsers accept NaN, keep the last of two equal keys, and answer deep nesting or a lone surrogate with 500.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

from fastapi import Depends
from starlette.requests import Request

from search.errors import Problem
from service.errors import ApiError

LARGEST_BODY = 1 << 20
DRAINED = 16 << 20
"""Bytes of a body over the limit that are still read, so that the client gets to see the answer."""
DEEPEST = 32
MOST_VALUES = 20_000
LARGEST_INTEGER = 2**63
LONGEST_NUMBER = 400
UTF8 = {"charset=utf-8", 'charset="utf-8"', ""}

# possessive and with an optional end: a string that never ends must not cost a scan for each of its quotes
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


async def json_body(request: Request) -> Any:
    """The decoded body. ApiError 400, 413 or 415 for anything but reasonable JSON in UTF-8."""
    _check_media_type(request)
    return parse(await _read(request))


Body = Annotated[Any, Depends(json_body)]


def parse(raw: bytes) -> Any:
    """JSON from bytes. ApiError 400 with the field's path."""
    if not raw.strip():
        _refuse("The body is empty; send JSON.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("The body is not UTF-8.")
    if text.startswith("\ufeff"):
        _refuse("The body begins with a byte order mark; send plain UTF-8.")
    _check_depth(text)
    try:
        value = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_constant, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        _refuse(f"The body is not JSON: line {error.lineno}, column {error.colno}.")
    for count, (path, problem) in enumerate(_walk(value, ""), start=1):
        if count > MOST_VALUES:
            _refuse(f"The body holds more than {MOST_VALUES} values.")
        if problem:
            _refuse(problem, path)
    return value


def _check_media_type(request: Request) -> None:
    parts = [part.strip().lower() for part in request.headers.get("content-type", "").split(";")]
    if parts[0] != "application/json" or not set(parts[1:]) <= UTF8:
        raise ApiError(415, "Send the body as application/json in UTF-8.", headers={"Accept-Post": "application/json"})
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "Send the body without a content encoding.", headers={"Accept-Encoding": "identity"})


async def _read(request: Request) -> bytes:
    """The whole body, counted as it comes: a length in a header may be missing."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > DRAINED:
        _too_large()
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= LARGEST_BODY:
            parts.append(chunk)
        elif size > DRAINED:
            break
    if size > LARGEST_BODY:
        _too_large()
    return b"".join(parts)


def _check_depth(text: str) -> None:
    """Before decoding, which recurses."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += _STEPS[bracket]
        if depth > DEEPEST:
            _refuse(f"The body is nested deeper than {DEEPEST}.")


def _integer(text: str) -> int:
    if len(text) > 20 or not -LARGEST_INTEGER <= int(text) < LARGEST_INTEGER:
        _refuse("The body holds an integer over 63 bits.")
    return int(text)


def _number(text: str) -> float:
    value = float(text) if len(text) <= LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        _refuse("The body holds a number that is too large or too long.")
    return value


def _constant(text: str) -> NoReturn:
    _refuse(f"{text} is not JSON.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            _refuse("The body names a field twice in one object.", name)
        found[name] = value
    return found


def _walk(value: Any, path: str) -> Iterator[tuple[str, str | None]]:
    """Every value with its path, and what is wrong with it."""
    if isinstance(value, dict):
        yield path, None
        for name, item in value.items():
            inner = f"{path}.{name}".strip(".")
            yield from ((inner, problem) for problem in [_text_problem(name)] if problem)
            yield from _walk(item, inner)
    elif isinstance(value, list):
        yield path, None
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}.{index}".strip("."))
    else:
        yield path, _text_problem(value) if isinstance(value, str) else None


def _text_problem(text: str) -> str | None:
    if "\0" in text:
        return "The body holds a NUL character."
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "The body holds half of a surrogate pair."
    return None


def _refuse(message: str, field: str = "") -> NoReturn:
    raise ApiError(400, message, [Problem(field, message)])


def _too_large() -> NoReturn:
    # closing keeps the unread rest from being taken for the next request
    raise ApiError(413, f"The body is over {LARGEST_BODY} bytes.", headers={"Connection": "close"})
