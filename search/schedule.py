"""ScheduleSpec: a search to repeat, as a user writes it; when it fires, and the request that a fire makes of it.

Pure: what the template names is checked by whoever knows the cluster's data sets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from search import hooks, wording
from search.errors import Problem, SpecError, shown
from search.fields import Name, Part
from search.json_values import MOST_PROBLEMS, text_keys, unfit
from search.timetable import Timetable

Overlap = Literal["skip", "queue", "allow", "replace"]
EventName = Literal["finished", "failed", "improved"]
PREVIOUS = "previous"
LONGEST_CATCH_UP = 7 * 24 * 3600
LONGEST_JITTER = 24 * 3600
LEAST_GAP_SECONDS = 60
"""Between two fires of any timetable."""
MOST_KEPT = 10_000
MOST_TARGETS = 20
_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LONELY = re.compile(r"\{\{|\}\}|\{%|%\}")
FIRE_AT = "fire_at"


def _moment(value: Any) -> Any:
    """ISO 8601 with its offset, as JSON writes a time."""
    if not isinstance(value, str):
        return value
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("Must be a time as in 2026-03-01T02:00:00+01:00") from None
    if found.tzinfo is None:
        raise ValueError("Must say its offset from UTC, as in 2026-03-01T02:00:00+01:00, or end in Z")
    if not 1970 <= found.year <= 9000:
        raise ValueError("Must be between the years 1970 and 9000")
    return found.astimezone(UTC)


Moment = Annotated[datetime, BeforeValidator(_moment)]


class Target(Part):
    """Who is told, and of what. A web hook is signed with its secret, which no answer shows."""

    channel: Literal["webhook", "email"]
    target: Annotated[str, Field(min_length=1, max_length=hooks.LONGEST_URL)]
    events: Annotated[list[EventName], Field(min_length=1, max_length=3)] = ["finished", "failed"]
    secret: Annotated[str, Field(min_length=16, max_length=200)] | None = Field(
        default=None, description="Key of the signature (HMAC-SHA256). Left out of a change, it stays as it is."
    )

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        if len(set(self.events)) < len(self.events):
            raise ValueError("An event is listed twice")
        if self.channel == "email":
            if not hooks.is_email(self.target):
                raise ValueError("The target must be one plain e-mail address")
            if self.secret is not None:
                raise ValueError("An e-mail has no secret")
        else:
            hooks.parse(self.target)
        return self


class ScheduleSpec(Part):
    """A search to repeat: when, what, and what to do when the one before has not ended."""

    name: Name
    cron: str = Field(description="Five fields: minute, hour, day of month, month, day of week.")
    zone: str = Field(default="UTC", description="IANA name of the time zone that the expression is meant in.")
    template: dict[str, Any] = Field(
        description="The search as POST /api/v1/searches takes it. `{{ fire_at }}` in its name and tags is replaced by "
        "the time of the fire; `strategy.points: previous` tries the front of the search before first."
    )
    overlap: Overlap = Field(
        default="skip",
        description="When the search before has not ended: skip this one; queue it until then (the newest waits); "
        "allow both; replace the one before.",
    )
    catch_up_seconds: Annotated[int, Field(ge=0, le=LONGEST_CATCH_UP)] = Field(
        default=3600, description="How late the latest missed fire still runs; earlier ones are noted as missed."
    )
    jitter_seconds: Annotated[int, Field(ge=0, le=LONGEST_JITTER)] = Field(
        default=0,
        description="Each fire starts up to so much later, always the same for one fire, and before the next one's "
        "time.",
    )
    start_at: Moment | None = None
    end_at: Moment | None = None
    enabled: bool = True
    priority: Annotated[int, Field(ge=0, le=9)] = Field(
        default=5, description="Of the searches. Default: the template's, else 5."
    )
    keep: Annotated[int, Field(ge=1, le=MOST_KEPT)] | None = Field(
        default=None, description="Ended searches to keep; older ones are deleted. Left out: all."
    )
    owner: Name | None = None
    notify: Annotated[list[Target], Field(max_length=MOST_TARGETS)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.start_at is not None and self.end_at is not None and self.end_at <= self.start_at:
            raise ValueError("end_at must be after start_at")
        if len({(target.channel, target.target) for target in self.notify}) < len(self.notify):
            raise ValueError("notify lists one target twice")
        return self

    @classmethod
    def parse(cls, data: Any) -> ScheduleSpec:
        """The schedule in `data` (decoded JSON or YAML); SpecError with every problem found by itself."""
        if not isinstance(data, Mapping):
            raise SpecError.one("", "A schedule is an object with at least `name`, `cron` and `template`.")
        problems = list(unfit(data))
        if problems:
            raise SpecError(problems)
        try:
            found = cls.model_validate(text_keys(data))
        except ValidationError as error:
            raise SpecError(list(wording.problems(error, cls))[:MOST_PROBLEMS]) from None
        timetable = Timetable.parse(found.cron, found.zone)
        return found.model_copy(update={"cron": timetable.cron})


def with_priority(data: Any) -> Any:
    """A schedule's request, or a change of one, with its template's priority where it says none of its own.

    SpecError where the two differ.
    """
    template = data.get("template") if isinstance(data, Mapping) else None
    wanted = template.get("priority") if isinstance(template, Mapping) else None
    if wanted is None:
        return data
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 0 <= wanted <= 9:
        raise SpecError.one("template.priority", "Must be a whole number from 0 to 9.")
    if data.get("priority", wanted) != wanted:
        text = f"The schedule says {shown(data['priority'])} and its template {wanted}: leave one of the two out."
        raise SpecError.one("priority", text)
    return {**data, "priority": wanted}


@dataclass(frozen=True)
class Rhythm:
    """When a schedule is due. key: the schedule's id, which decides its jitter."""

    timetable: Timetable
    key: str
    jitter_seconds: int = 0
    start_at: datetime | None = None
    end_at: datetime | None = None

    def next(self, moment: datetime) -> datetime | None:
        """The first time of the timetable after `moment`, between start and end."""
        if self.start_at is not None and moment < self.start_at:
            moment = self.start_at - timedelta(microseconds=1)
        found = self.timetable.next(moment)
        return found if found is not None and (self.end_at is None or found <= self.end_at) else None

    def come(self, planned: datetime, now: datetime) -> Iterator[datetime]:
        """The times after `planned` that are due at `now` too, in order."""
        until = now if self.end_at is None else min(now, self.end_at)
        for at in self.timetable.after(planned, until):
            if self.due(at) > now:
                return
            yield at

    def due(self, planned: datetime) -> datetime:
        """When the fire of a time starts: later by its jitter, and before the next one's time."""
        if not self.jitter_seconds:
            return planned
        room = self.jitter_seconds + 1
        following = self.timetable.next(planned) if room > LEAST_GAP_SECONDS else None
        if following is not None:  # else a later fire could be due first, and this one count as missed
            room = min(room, int((following - planned).total_seconds()))
        digest = hashlib.sha256(f"{self.key} {planned.astimezone(UTC).isoformat()}".encode()).digest()
        return planned + timedelta(seconds=int.from_bytes(digest[:8]) % room)


def wants_previous(template: Mapping[str, Any]) -> bool:
    """Whether the template asks for the previous front first."""
    strategy = template.get("strategy")
    return isinstance(strategy, Mapping) and strategy.get("points") == PREVIOUS


def render(
    template: Mapping[str, Any], fire_at: datetime, zone: str, *, priority: int, owner: str | None
) -> dict[str, Any]:
    """The request of a fire. SpecError for something else between braces: texts are filled in, never evaluated."""
    request = deepcopy(dict(template))
    text = fire_at.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes")
    problems: list[Problem] = []
    if isinstance(request.get("name"), str):
        request["name"] = _filled(request["name"], text, "name", problems)
    if isinstance(request.get("tags"), list):
        request["tags"] = [
            _filled(tag, text, f"tags.{index}", problems) if isinstance(tag, str) else tag
            for index, tag in enumerate(request["tags"])
        ]
    if problems:
        raise SpecError(problems)
    if wants_previous(request):
        request["strategy"] = {name: value for name, value in request["strategy"].items() if name != "points"}
    request["priority"] = priority
    if owner is not None:
        request.setdefault("owner", owner)
    return request


def _filled(text: str, fire_at: str, field: str, problems: list[Problem]) -> str:
    for inside in _PLACE.findall(text):
        if inside.strip() != FIRE_AT:
            message = f"{shown(inside.strip())} cannot be filled in; nothing between braces is evaluated."
            problems.append(Problem(field, message, (f"{{{{ {FIRE_AT} }}}}",)))
            return text
    found = _PLACE.sub(lambda _: fire_at, text)
    if _LONELY.search(found):
        problems.append(Problem(field, "Braces do not match.", (f"{{{{ {FIRE_AT} }}}}",)))
    return found
