"""A schedule by the clock: from the minute that it is due to the signed message and the page of the comparison."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, Ray, opened_house, until

SECRET = "canary-2b7e-long-enough"
SEARCH = {
    "name": "minutely {{ fire_at }}",
    "dataset": {"name": "digits"},
    "backbone": {"name": "resnet8", "width": 4},
    "space": {"modules": ["none", "se"], "reduction": [2], "pattern": ["every"]},
    "training": {"epochs": 1},
    "budget": {"trials": 1},
    "resources": {"concurrent": 1},
    "controls": False,
}
Got = list[tuple[dict[str, str], bytes]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Got]]:
    """The address of a web hook of this machine, and the headers and bodies that have come."""
    got: Got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/attune", got
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def telling_house(tmp_path: Path, sqlite_template: Path, ray_node: Ray) -> Iterator[House]:
    """The service over SQLite, whose operator allows web hooks to this machine."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(sqlite_template, home / "attune.db")
    with opened_house(f"sqlite:///{home / 'attune.db'}", home, ray_node, ATTUNE_HOOK_HOSTS="127.0.0.1") as opened:
        yield opened


def is_genuine(headers: dict[str, str], body: bytes) -> bool:
    """As the documentation tells a receiver to check."""
    parts = dict(part.split("=") for part in headers["attune-signature"].split(","))
    expected = hmac.new(SECRET.encode(), parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(parts["v1"], expected) and abs(time.time() - int(parts["t"])) < 300


def statuses(house: House, schedule_id: str) -> set[tuple[str, str]]:
    """The schedule's messages, by id, and what has become of them."""
    return {(each["id"], each["status"]) for each in house.client.deliveries(schedule_id)}


def page(house: House, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{house.port}{path}", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_a_search_every_minute_until_the_second_is_compared_with_the_first(
    telling_house: House, receiver: tuple[str, Got]
) -> None:
    house, (address, got) = telling_house, receiver
    hook = {"channel": "webhook", "target": address, "events": ["finished", "failed"], "secret": SECRET}
    made = house.client.add_schedule({"name": "minutely", "cron": "* * * * *", "template": SEARCH, "notify": [hook]})

    def finished() -> list[dict[str, Any]] | None:
        """The fires whose searches have succeeded, the oldest first, once there are two."""
        fires = [fire for fire in house.client.fires(made["id"]) if fire["search_id"]]
        assert {fire["search_status"] for fire in fires} <= {"queued", "running", "succeeded"}, fires
        done = [fire for fire in reversed(fires) if fire["search_status"] == "succeeded"]
        return done if len(done) >= 2 else None

    first, second = until(finished, 420, every=0.5)[:2]
    messages = until(lambda: [each for each in got if second["search_id"].encode() in each[1]], 60)
    paused = house.client.edit_schedule(made["id"], {"enabled": False})
    assert (paused["next_fire_at"], paused["coming"]) == (None, [])

    ((headers, body),) = messages
    assert is_genuine(headers, body)
    assert headers["attune-event"] == "finished"
    told = json.loads(body)
    assert (told["event"], told["schedule"]["name"]) == ("finished", "minutely")
    until(lambda: (headers["attune-delivery"], "sent") in statuses(house, made["id"]), 30)

    fires = list(house.client.fires(made["id"]))
    times = [datetime.fromisoformat(fire["fire_at"]) for fire in fires]
    assert {(at.second, at.microsecond) for at in times} == {(0, 0)}
    # each minute once, whether its search ran or the one before had not ended
    assert {late - early for late, early in pairwise(times)} == {timedelta(minutes=1)}
    assert {house.client.search(fire["search_id"])["schedule_id"] for fire in (first, second)} == {made["id"]}

    compared = house.client.comparison(made["id"], second["id"])
    assert compared["comparable"], compared
    assert (compared["search_id"], compared["previous_search_id"]) == (second["search_id"], first["search_id"])
    assert (compared["final"], compared["data_changed"]) == (True, False)
    assert compared["hypervolume"]["before"] > 0
    assert compared["hypervolume"]["after"] > 0
    shown = page(house, f"/schedules/{made['id']}/fires/{second['id']}")
    assert compared["summary"] in shown
    assert f"/searches/{first['search_id']}" in shown
    assert not house.client.comparison(made["id"], first["id"])["comparable"]
