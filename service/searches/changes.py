"""What may change of a search that is there: its name, tags and priority; a larger budget; its failed trials again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.orm import Session

from db import searches
from db.engine import retrying
from db.models import Search
from search import wording
from search.errors import Problem, SpecError
from search.fields import Name, Part, Tag
from search.spec import BudgetSpec
from service.once import Answer, once
from service.searches import logic
from service.state import Service

ACCEPTED = 202
C = TypeVar("C", bound="Change")


class Change(Part):
    """A body of optional fields, of which at least one is given. A field that is there is not null."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=False)

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("Must not be null: leave out what stays as it is")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"Give at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The fields that the request holds."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    @classmethod
    def parse(cls: type[C], data: Any) -> C:
        """SpecError with every problem found."""
        if not isinstance(data, Mapping):
            raise SpecError.one("", f"Send an object with some of {', '.join(cls.model_fields)}.")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError(wording.problems(error, cls)) from None


class Edit(Change):
    """What a user may change of a search at any time."""

    name: Name | SkipJsonSchema[None] = None
    tags: Annotated[list[Tag], Field(max_length=20)] | SkipJsonSchema[None] = None
    priority: Annotated[int, Field(ge=0, le=9)] | SkipJsonSchema[None] = None


class Extension(Change):
    """A larger budget; each number is the new total, not what is added."""

    trials: int | SkipJsonSchema[None] = None
    hours: float | SkipJsonSchema[None] = None
    gpu_hours: float | SkipJsonSchema[None] = None


def edit(house: Service, search_id: str, data: Any, version: int | None) -> dict[str, Any]:
    """The search with what the body names changed. SpecError, NotFound, Stale."""
    wanted = Edit.parse(data)
    return retrying(
        house.engine,
        lambda session: _told(session, searches.edit(session, search_id, version=version, **wanted.given)),
        attempts=3,
    )


def extend(house: Service, search_id: str, data: Any, key: str | None, version: int | None) -> Answer:
    """Queues a finished search again with a larger budget. SpecError, NotFound, Stale, Conflict, ApiError 409/422."""
    wanted = Extension.parse(data)

    def work(session: Session) -> Search:
        search = searches.lock(session, search_id, version=version)
        spec = search.spec | {"budget": larger_budget(search.spec["budget"], wanted.given)}
        return searches.reopen(session, search_id, spec=spec, spec_version=search.spec_version, version=version)

    return _reopened(house, f"POST searches/{search_id}/extend", data, key, work)


def retry(house: Service, search_id: str, key: str | None, version: int | None) -> Answer:
    """Queues a finished search again, to try its failed trials once more. NotFound, Stale, Conflict, ApiError 409."""
    return _reopened(
        house, f"POST searches/{search_id}/retry", None, key,
        lambda session: searches.reopen(session, search_id, retry_failed=True, version=version),
    )  # fmt: skip


def larger_budget(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The budget with what is wanted in place. SpecError naming each field that is not larger than now."""
    problems = [Problem(name, why) for name, value in wanted.items() if (why := _too_small(now.get(name), value))]
    if problems:
        raise SpecError(problems)
    try:
        return BudgetSpec.model_validate({**now, **wanted}).model_dump(mode="json")
    except ValidationError as error:
        raise SpecError(wording.problems(error, BudgetSpec)) from None


def _too_small(now: float | None, value: float) -> str | None:
    if now is None:
        return "The search has no such limit, so it cannot be raised."
    return None if value > now else f"Must be over {now:,.12g}, the budget that the search has now."


def _reopened(house: Service, scope: str, payload: Any, key: str | None, work: Callable[[Session], Search]) -> Answer:
    def store(session: Session) -> Answer:
        return once(session, scope, key, payload, ACCEPTED, lambda: _told(session, work(session)))

    return retrying(house.engine, store, attempts=3)


def _told(session: Session, search: Search) -> dict[str, Any]:
    return logic.shown(session, [search])[0].model_dump(mode="json")
