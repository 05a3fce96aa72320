"""A template is filled in and never evaluated; times between start and end; hosts that are private in disguise."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from search import hooks
from search.errors import SpecError
from search.schedule import Rhythm, render, wants_previous
from search.timetable import Timetable

AT = datetime(2027, 10, 31, 0, 30, tzinfo=UTC)


def filled(**template: Any) -> dict[str, Any]:
    return render(template, AT, "Europe/Berlin", priority=3, owner="mira")


def test_the_time_is_the_zones_with_its_offset() -> None:
    found = filled(name="a {{ fire_at }} b {{fire_at}}", tags=["{{ fire_at }}", "x"])
    assert found["name"] == "a 2027-10-31T02:30+02:00 b 2027-10-31T02:30+02:00"
    assert found["tags"] == ["2027-10-31T02:30+02:00", "x"]
    assert (found["priority"], found["owner"]) == (3, "mira")
    assert filled(name="x", owner="me")["owner"] == "me"


@pytest.mark.parametrize(
    "name",
    ["{{ 7*7 }}", "{{ fire_at.__class__ }}", "{{", "a }}", "{% if x %}", "{{ fire_at }", "{{ fire_at | upper }}"],
)
def test_everything_else_between_braces_is_refused(name: str) -> None:
    with pytest.raises(SpecError) as error:
        filled(name=name)
    assert error.value.problems[0].field == "name"


def test_previous_is_taken_out_and_the_template_stays_as_it_was() -> None:
    template = {"name": "x", "strategy": {"name": "nsga2", "points": "previous"}}
    assert wants_previous(template)
    assert filled(**template)["strategy"] == {"name": "nsga2"}
    assert template["strategy"] == {"name": "nsga2", "points": "previous"}
    assert not wants_previous({"strategy": {"points": []}})


def test_start_is_the_first_and_end_the_last() -> None:
    start, end = datetime(2027, 1, 1, 2, tzinfo=UTC), datetime(2027, 1, 1, 4, tzinfo=UTC)
    rhythm = Rhythm(Timetable.parse("0 * * * *", "UTC"), "k", 0, start, end)
    assert rhythm.next(datetime(2020, 1, 1, tzinfo=UTC)) == start
    assert rhythm.next(datetime(2027, 1, 1, 3, tzinfo=UTC)) == end
    assert rhythm.next(end) is None


def test_a_start_between_two_minutes_is_not_fired_before() -> None:
    start = datetime(2027, 1, 1, 2, 0, 0, 500_000, tzinfo=UTC)
    rhythm = Rhythm(Timetable.parse("0 * * * *", "UTC"), "k", 0, start)
    assert rhythm.next(datetime(2020, 1, 1, tzinfo=UTC)) == datetime(2027, 1, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.0.0.1", False), ("172.31.0.1", False),
        ("192.168.1.1", False), ("127.0.0.1", False), ("0.0.0.0", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("224.0.0.1", False), ("240.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fe80::1", False), ("fe80::1%eth0", False), ("fc00::1", False),
        ("ff02::1", False), ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), 
        ("64:ff9b::808:808", True), ("64:ff9b::a00:7", False), ("2002:7f00:1::", False),
        ("fec0::1", False), ("feff:ffff::1", False), ("not an address", False),
    ],
)  # fmt: skip
def test_what_is_public(address: str, public: bool) -> None:
    assert hooks.is_public(address) is public


def test_one_private_address_among_several_is_too_many() -> None:
    hook = hooks.parse("https://a.example/x")
    with pytest.raises(hooks.HookError, match="private"):
        hooks.addresses(hook, (), lambda host, port: ["8.8.8.8", "10.0.0.1"])
    assert hooks.addresses(hook, (), lambda host, port: ["8.8.8.8"]) == ["8.8.8.8"]
    inside = hooks.parse("http://ci.lab:8080/x")
    assert hooks.addresses(inside, {"ci.lab"}, lambda host, port: ["10.0.0.1"]) == ["10.0.0.1"]


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a.example/", "https://", "https://a.example:99999/", "https://u:p@a.example/",
     "https://a.example/\r\nX: y", "https://a example/", "https://a.example/#x", "https://[::1/", "https://a\\b.example/"],
)  # fmt: skip
def test_what_is_no_address_of_a_hook(url: str) -> None:
    with pytest.raises(hooks.HookError):
        hooks.parse(url)
