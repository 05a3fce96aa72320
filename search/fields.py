"""What the fields of a request are made of: strict models, text that can be shown, lists that may be one choice."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from search.sites import PATTERN_NAMES, POSITIONS, Position


class Part(BaseModel):
    """A part of the request: unknown fields are refused, "5" is not 5, NaN is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class OpenPart(Part):
    """A part whose further fields are options of the thing it names; they are checked where that is looked up."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _printable(text: str) -> str:
    """Refuses what cannot be shown safely on a page (control and bidirectional characters), and what shows nothing."""
    if not all(map(_is_showable, text)):
        raise ValueError("Line breaks, control characters and marks of the direction of text are not allowed")
    if not any(unicodedata.category(character)[0] in "LNPS" for character in text):
        raise ValueError("Must not be blank")
    return text


def _is_showable(character: str) -> bool:
    # joiners and selectors make emoji; emoji that are younger than this Python count as unassigned
    if character in "\u200d\ufe0f" or "\U0001f000" <= character <= "\U0001fbff":
        return True
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}


def as_list(value: Any) -> Any:
    """One choice may be written without the list around it."""
    return value if isinstance(value, list) or value is None else [value]


def as_object(value: Any) -> Any:
    """What has no options may be written by its name alone."""
    if isinstance(value, str):
        return {"name": value}
    if value is not None and not isinstance(value, Mapping | BaseModel):
        raise ValueError("Write a name, or an object with a name and options")
    return value


def or_name(schema: dict[str, Any]) -> None:
    """Has a JSON schema say that the name alone will do."""
    schema["anyOf"].insert(0, {"type": "string"})


def or_auto(schema: dict[str, Any]) -> None:
    """Has a JSON schema say that `auto` will do."""
    bounds = {name: schema.pop(name) for name in ("type", "minimum", "maximum") if name in schema}
    schema["anyOf"] = [bounds, {"const": "auto", "type": "string"}]


def _stage_number(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]?", text):
        raise ValueError("A stage is named by its number, from 1")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Tag = Annotated[str, Field(min_length=1, max_length=50), AfterValidator(_printable)]
Identifier = Annotated[str, Field(min_length=1, max_length=100)]
StageKey = Annotated[str, AfterValidator(_stage_number)]
Ratio = Annotated[int, Field(ge=1, le=65536)]

Modules = Annotated[
    list[Any],
    BeforeValidator(as_list),
    Field(
        min_length=1,
        max_length=200,
        description="What may sit in a stage: a module's name, `none`, an object {kind, option: value or list of "
        "values, position}, or a list of modules stacked in one block.",
        json_schema_extra={"items": {"oneOf": [{"type": "string"}, {"type": "object"}, {"type": "array"}]}},
    ),
]
Ratios = Annotated[
    list[Ratio],
    BeforeValidator(as_list),
    Field(min_length=1, max_length=50, description="Reduction ratios r for modules that have one."),
]
Patterns = Annotated[
    list[Any],
    BeforeValidator(as_list),
    Field(
        min_length=1,
        max_length=50,
        description=f"Which blocks of a stage get the module: {', '.join(PATTERN_NAMES)}, or a list of block numbers "
        "(from 1).",
        json_schema_extra={
            "items": {
                "oneOf": [{"enum": list(PATTERN_NAMES)}, {"type": "array", "items": {"type": "integer", "minimum": 1}}]
            }
        },
    ),
]
Positions = Annotated[
    list[Position],
    BeforeValidator(as_list),
    Field(
        min_length=1,
        max_length=len(POSITIONS),
        description="Where in a block the module goes. Left out: each module's own place, as in its paper. It applies "
        "to modules whose own place is `residual`; others keep theirs unless the module itself names a position.",
    ),
]
