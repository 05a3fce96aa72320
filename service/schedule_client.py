"""The part of the client that is about schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.connection import Connection, Json
from service.problems import AttuneError

PATH = "/api/v1/schedules"


class ScheduleCalls(Connection):
    """Schedules, their fires and messages."""

    def add_schedule(self, schedule: Mapping[str, Any], idempotency_key: str | None = None) -> Json:
        """Keeps a schedule and returns it. Repeating the call with the same key gives the same one."""
        return self._once(PATH, schedule, idempotency_key)

    def schedules(self, **filters: Any) -> Iterator[Json]:
        """All schedules, by name."""
        return self._items(PATH, filters)

    def schedule(self, schedule_id: str) -> Json:
        return self._json("GET", f"{PATH}/{schedule_id}")

    def find_schedule(self, text: str) -> Json:
        """The one schedule with this id or name, or whose id begins so; AttuneError for none or more than one."""
        found = list(self.schedules())
        for exact in ("id", "name"):
            for each in found:
                if each[exact] == text:
                    return each
        some = [each for each in found if each["id"].startswith(text.lower())]
        if len(some) == 1:
            return some[0]
        if not some:
            raise AttuneError(f"There is no schedule {text!r}, by its name or the beginning of its id.", status=404)
        raise AttuneError(f"{len(some)} schedules have an id that begins with {text!r}.", status=404)

    def edit_schedule(self, schedule_id: str, changes: Mapping[str, Any], *, version: int | None = None) -> Json:
        """Changes what is given. version: of the schedule as it was seen; a newer one is an AttuneError of 412."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return self._json("PATCH", f"{PATH}/{schedule_id}", body=changes, headers=headers)

    def run_schedule(self, schedule_id: str, idempotency_key: str | None = None) -> Json:
        """Starts a search of the schedule now; the fire that says which."""
        return self._once(f"{PATH}/{schedule_id}/run", None, idempotency_key)

    def delete_schedule(self, schedule_id: str) -> None:
        """Deletes the schedule with its history; its searches stay."""
        self._send("DELETE", f"{PATH}/{schedule_id}")

    def fires(self, schedule_id: str, **filters: Any) -> Iterator[Json]:
        """What has become of a schedule's times, newest first."""
        return self._items(f"{PATH}/{schedule_id}/fires", filters)

    def comparison(self, schedule_id: str, fire_id: str) -> Json:
        """A fire's search beside the one before."""
        return self._json("GET", f"{PATH}/{schedule_id}/fires/{fire_id}/comparison")

    def test_messages(self, schedule_id: str) -> list[Json]:
        """Queues a test message to everybody whom the schedule tells."""
        found: list[Json] = self._json("POST", f"{PATH}/{schedule_id}/test")["items"]
        return found

    def deliveries(self, schedule_id: str, **filters: Any) -> Iterator[Json]:
        """A schedule's messages, newest first."""
        return self._items(f"{PATH}/{schedule_id}/deliveries", filters)

    def explain_expression(self, cron: str, zone: str = "UTC", **more: Any) -> Json:
        """What a cron expression means, and when it comes next."""
        return self._json("POST", f"{PATH}/preview", body={"cron": cron, "zone": zone, **more})
