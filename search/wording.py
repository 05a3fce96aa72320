"""Pydantic's findings in plain words, for people who have never heard of pydantic; inputs are never echoed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from search.errors import Problem

Words = Callable[[Mapping[str, Any]], str]


def _items(count: int) -> str:
    return f"{count} entry" if count == 1 else f"{count} entries"


OBJECT = "Must be an object with named fields."
WORDS: dict[str, Words] = {
    "missing": lambda ctx: "This field is required.",
    "int_type": lambda ctx: "Must be a whole number, without quotes and without a decimal point.",
    "int_from_float": lambda ctx: "Must be a whole number, without quotes and without a decimal point.",
    "float_type": lambda ctx: "Must be a number, without quotes.",
    "finite_number": lambda ctx: "Must be a finite number.",
    "bool_type": lambda ctx: "Must be true or false, without quotes.",
    "string_type": lambda ctx: "Must be a text.",
    "list_type": lambda ctx: "Must be a list.",
    "tuple_type": lambda ctx: "Must be a list.",
    "dict_type": lambda ctx: OBJECT,
    "model_type": lambda ctx: OBJECT,
    "model_attributes_type": lambda ctx: OBJECT,
    "greater_than": lambda ctx: f"Must be over {ctx['gt']:,.12g}.",
    "greater_than_equal": lambda ctx: f"Must be at least {ctx['ge']:,.12g}.",
    "less_than": lambda ctx: f"Must be under {ctx['lt']:,.12g}.",
    "less_than_equal": lambda ctx: f"Must be at most {ctx['le']:,.12g}.",
    "string_too_short": lambda ctx: (
        "Must not be empty." if ctx["min_length"] <= 1 else f"Must have at least {ctx['min_length']} characters."
    ),
    "string_too_long": lambda ctx: f"Must not be longer than {ctx['max_length']} characters.",
    "too_short": lambda ctx: f"Needs at least {_items(ctx['min_length'])}.",
    "too_long": lambda ctx: f"Takes at most {_items(ctx['max_length'])}.",
    "extra_forbidden": lambda ctx: "Unknown field.",
    "literal_error": lambda ctx: "Not one of the valid choices.",
    "none_required": lambda ctx: "Must be null, or left out.",
    "invalid_key": lambda ctx: "The name of a field must be a text.",
}


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> Iterator[Problem]:
    """Every finding of `error` about `model`, once, with its field's path below `prefix`."""
    found: dict[str, Problem] = {}
    flat = not any(_model_in(field.annotation) for field in model.model_fields.values())
    for item in error.errors(include_url=False, include_input=False):
        path = ".".join([prefix, *_path(item["loc"], flat)]).strip(".")
        message = "Unknown option." if flat and item["type"] == "extra_forbidden" else _message(item)
        problem = Problem(path, message, _choices(item, model))
        known = found.get(path)
        # the branches of a union ("a number, or C1") speak of one field
        found[path] = problem if known is None else _either(known, problem)
    yield from found.values()


def _message(item: Mapping[str, Any]) -> str:
    words = WORDS.get(item["type"])
    return words(item.get("ctx", {})) if words else str(item["msg"]).removeprefix("Value error, ").rstrip(".") + "."


def _choices(item: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, ...]:
    if item["type"] == "extra_forbidden":
        return _fields_at(model, item["loc"][:-1])
    if item["type"] == "literal_error":
        quoted = re.findall(r"'([^']*)'|([^\s,']+)", str(item.get("ctx", {}).get("expected", "")))
        return tuple(text or other for text, other in quoted if other != "or")
    return ()


def _either(first: Problem, second: Problem) -> Problem:
    if first == second or not second.choices:
        return first
    if not first.choices:
        return Problem(first.field, f"{first.message.rstrip('.')}, or one of the choices.", second.choices)
    return Problem(first.field, first.message, tuple(dict.fromkeys(first.choices + second.choices)))


def _path(location: tuple[int | str, ...], flat: bool) -> Iterator[str]:
    """The location without pydantic's own marks: "[key]" behind a key and, in a flat model, the branch of a union."""
    for index, part in enumerate(location):
        if part != "[key]" and not (flat and index and isinstance(part, str)):
            yield str(part)


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> tuple[str, ...]:
    """The fields of the model nested at `path`, as far as it can be followed."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        inner = _model_in(field.annotation)
        if inner is None:
            return ()
        model = inner
    return tuple(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_model_in(inner) for inner in getattr(annotation, "__args__", ())]
    return next((inner for inner in found if inner is not None), None)
