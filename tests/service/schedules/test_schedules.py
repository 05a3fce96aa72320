"""/api/v1/schedules: made, changed, run by hand, refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from db import catalog, schedules, searches
from db.engine import reading, writing
from db.models import Schedule
from search.schedule import Rhythm
from search.timetable import Timetable
from service.schedules import changes as changing
from tests.service.support import SPEC, Driver, architecture, engine_of

SECRET = "a secret that is long enough"
TEMPLATE = {**SPEC, "name": "weekly {{ fire_at }}"}
BODY: dict[str, Any] = {"name": "weekly", "cron": "0 2 * * SUN", "zone": "Europe/Berlin", "template": TEMPLATE}
PATH = "/api/v1/schedules"


def make(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post(PATH, json=BODY | changes)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(client: TestClient, **changes: Any) -> list[str]:
    answer = client.post(PATH, json=BODY | changes)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return [problem["field"] for problem in answer.json().get("errors", [])]


def test_a_schedule_is_kept_and_told(any_client: TestClient) -> None:
    made = make(any_client, keep=5, priority=7, jitter_seconds=60)
    answer = any_client.get(f"{PATH}/{made['id']}")
    assert answer.json() == made
    assert answer.headers["ETag"] == '"1"'
    assert made["meaning"] == "At 02:00 on Sunday"
    following = datetime.fromisoformat(made["next_fire_at"])
    assert datetime.now(UTC) < following < datetime.now(UTC) + timedelta(days=8)
    starts = datetime.fromisoformat(made["starts_at"])
    assert timedelta(0) <= starts - following <= timedelta(seconds=60)
    assert made["template"] == TEMPLATE
    assert [item["id"] for item in any_client.get(PATH).json()["items"]] == [made["id"]]


def test_a_repeated_post_with_a_key_makes_one(any_client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = any_client.post(PATH, json=BODY, headers=headers)
    again = any_client.post(PATH, json=BODY, headers=headers)
    assert first.json() == again.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert any_client.post(PATH, json=BODY | {"keep": 3}, headers=headers).status_code == 422
    assert any_client.post(PATH, json=BODY).status_code == 409
    assert len(any_client.get(PATH).json()["items"]) == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cron": "0 0 30 2 *"}, "cron"),
    ({"cron": "0 0 0 * * *"}, "cron"),
    ({"cron": "*/61 * * * *"}, "cron"),
    ({"cron": "0 2 * * 0\n"}, "cron"),
    ({"cron": "0" * 5000}, "cron"),
    ({"cron": 5}, "cron"),
    ({"zone": "Mars/Phobos"}, "zone"),
    ({"zone": "Europe"}, "zone"),
    ({"zone": "localtime"}, "zone"),
    ({"zone": "U" * 5000}, "zone"),
    ({"zone": "../../etc/passwd"}, "zone"),
    ({"start_at": "2030-01-02T00:00:00Z", "end_at": "2030-01-01T00:00:00Z"}, ""),
    ({"start_at": "2030-01-02T00:00:00"}, "start_at"),
    ({"start_at": 5}, "start_at"),
    ({"start_at": "99999-01-02T00:00:00Z"}, "start_at"),
    ({"end_at": "2020-01-02T00:00:00Z"}, "end_at"),
    ({"keep": -5}, "keep"),
    ({"keep": 10**9}, "keep"),
    ({"keep": "5"}, "keep"),
    ({"catch_up_seconds": -1}, "catch_up_seconds"),
    ({"catch_up_seconds": 10**9}, "catch_up_seconds"),
    ({"jitter_seconds": True}, "jitter_seconds"),
    ({"priority": 10}, "priority"),
    ({"overlap": "sometimes"}, "overlap"),
    ({"nam": "x"}, "nam"),
    ({"name": " "}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"name": "a\u202eb"}, "name"),
    ({"enabled": "yes"}, "enabled"),
    ({"template": {}}, "template.name"),
    ({"template": "x"}, "template"),
    ({"template": {**TEMPLATE, "dataset": {"name": "../../etc/passwd"}}}, "template.dataset.name"),
    ({"template": {**TEMPLATE, "name": "{{ 7 * 7 }}"}}, "template.name"),
    ({"template": {**TEMPLATE, "name": "{% raw %}"}}, "template.name"),
    ({"template": {**TEMPLATE, "budget": {"trials": 0}}}, "template.budget.trials"),
    ({"template": {**TEMPLATE, "strategy": {"points": "best"}}}, "template.strategy.points"),
    ({"notify": [{"channel": "webhook", "target": "https://127.0.0.1/x", "secret": SECRET}]}, "notify.0.target"),
    ({"notify": [{"channel": "webhook", "target": "https://10.1.2.3/x", "secret": SECRET}]}, "notify.0.target"),
    ({"notify": [{"channel": "webhook", "target": "https://[::1]/x", "secret": SECRET}]}, "notify.0.target"),
    ({"notify": [{"channel": "webhook", "target": "https://[::ffff:10.0.0.1]/", "secret": SECRET}]},
     "notify.0.target"),
    ({"notify": [{"channel": "webhook", "target": "https://169.254.169.254/", "secret": SECRET}]},
     "notify.0.target"),
    ({"notify": [{"channel": "webhook", "target": "https://localhost/x", "secret": SECRET}]}, "notify.0.target"),
    ({"notify": [{"channel": "webhook", "target": "http://1.1.1.1/x", "secret": SECRET}]}, "notify.0.target"),
    ({"notify": [{"channel": "webhook", "target": "file:///etc/passwd", "secret": SECRET}]}, "notify.0"),
    ({"notify": [{"channel": "webhook", "target": "https://u:p@1.1.1.1/", "secret": SECRET}]}, "notify.0"),
    ({"notify": [{"channel": "webhook", "target": "https://1.1.1.1/x"}]}, "notify.0.secret"),
    ({"notify": [{"channel": "webhook", "target": "https://1.1.1.1/x", "secret": "short"}]}, "notify.0.secret"),
    ({"notify": [{"channel": "email", "target": "x@y.example\r\nBcc: z@y.example"}]}, "notify.0"),
    ({"notify": [{"channel": "email", "target": "nobody"}]}, "notify.0"),
    ({"notify": [{"channel": "email", "target": "x@y.example", "events": ["improved"]}]}, "notify.0.events"),
    ({"notify": [{"channel": "pigeon", "target": "x"}]}, "notify.0.channel"),
]  # fmt: skip


def test_what_is_wrong_is_named(client: TestClient) -> None:
    for changes, field in WRONG:
        found = refused(client, **changes)
        assert field in found or (field == "" and found in ([], [""])), (changes, found)
    assert client.get(PATH).json()["items"] == []


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '{"name": NaN}', '"x"'])
def test_bodies_that_are_no_schedule(client: TestClient, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", PATH), ("POST", f"{PATH}/preview")):
        assert client.request(method, path, content=body, headers=headers).status_code in (400, 422)
    made = make(client)
    assert client.patch(f"{PATH}/{made['id']}", content=body, headers=headers).status_code in (400, 422)


@pytest.mark.parametrize("query", ["limit=-5", "limit=1000000000", "sort=name", "limit=1&limit=2", "cursor=x"])
def test_odd_queries_are_refused(client: TestClient, query: str) -> None:
    made = make(client)
    for path in (PATH, f"{PATH}/{made['id']}/fires", f"{PATH}/{made['id']}/deliveries"):
        assert client.get(f"{path}?{query}").status_code in (400, 422)


def test_strange_names_are_kept_as_they_are(client: TestClient) -> None:
    for name in ("'; DROP TABLE searches", "<script>alert(1)</script>", "🦊"):
        assert make(client, name=name)["name"] == name


def test_unknown_ones_are_404(client: TestClient) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/test"), ("GET", "/fires"), ("GET", "/deliveries"),
        ("GET", f"/fires/{nobody}/comparison"),
    ):  # fmt: skip
        assert client.request(method, f"{PATH}/{nobody}{path}").status_code == 404, path
    assert client.patch(f"{PATH}/{nobody}", json={"keep": 1}).status_code == 404
    assert client.get(f"{PATH}/..%2f").status_code == 404


def test_changes_pause_and_resume(any_client: TestClient) -> None:
    made = make(any_client)
    path = f"{PATH}/{made['id']}"
    paused = any_client.patch(path, json={"enabled": False}, headers={"If-Match": '"1"'})
    assert paused.status_code == 200
    assert (paused.json()["next_fire_at"], paused.headers["ETag"]) == (None, '"2"')
    assert any_client.patch(path, json={"enabled": True}, headers={"If-Match": '"1"'}).status_code == 412
    assert any_client.patch(path, json={"enabled": True}, headers={"If-Match": "x"}).status_code == 400
    resumed = any_client.patch(path, json={"enabled": True, "cron": "30 4 * * *", "keep": 3}).json()
    assert datetime.fromisoformat(resumed["next_fire_at"]) > datetime.now(UTC)
    assert (resumed["cron"], resumed["keep"], resumed["zone"]) == ("30 4 * * *", 3, "Europe/Berlin")
    assert any_client.patch(path, json={"keep": None}).json()["keep"] is None
    make(any_client, name="other")
    assert any_client.patch(path, json={"name": "other"}).status_code == 409
    wrong = any_client.patch(path, json={"cron": "x", "colour": 1}).json()
    assert {problem["field"] for problem in wrong["errors"]} >= {"colour"}
    assert any_client.delete(path, headers={"If-Match": '"1"'}).status_code == 412
    assert any_client.delete(path).status_code == 204
    assert any_client.get(path).status_code == 404


def put_back(client: TestClient, schedule_id: str, **columns: Any) -> None:
    """Changes a schedule's row as time does, or a dispatcher that lets a fire wait."""
    with writing(engine_of(client)) as session:
        session.execute(update(Schedule).where(Schedule.id == schedule_id).values(columns))


def timing(client: TestClient, schedule_id: str) -> dict[str, Any]:
    with reading(engine_of(client)) as session:
        found = select(Schedule.next_fire_at, Schedule.planned_at).where(Schedule.id == schedule_id)
        return dict(session.execute(found).one()._mapping)


def test_a_change_that_leaves_the_timetable_alone_loses_no_fire(any_client: TestClient) -> None:
    made = make(any_client, overlap="queue", jitter_seconds=600, start_at="2026-01-01T00:00:00Z")
    path = f"{PATH}/{made['id']}"
    now = datetime.now(UTC).replace(microsecond=0)
    waits = {"planned_at": now - timedelta(minutes=30), "next_fire_at": now + timedelta(seconds=5)}
    put_back(any_client, made["id"], **waits)
    # as the form sends it: everything
    names = ("name", "cron", "zone", "template", "overlap", "catch_up_seconds", "jitter_seconds", "start_at", "end_at",
             "enabled")  # fmt: skip
    answer = any_client.patch(path, json={name: made[name] for name in names} | {"priority": 9})
    assert (answer.status_code, answer.json()["priority"]) == (200, 9)
    assert timing(any_client, made["id"]) == waits
    assert any_client.get(f"{path}/fires").json()["items"] == []


@pytest.mark.parametrize("changes", [{"cron": "30 4 * * *"}, {"enabled": False}, {"jitter_seconds": 60}])
def test_fires_that_a_change_of_the_timetable_passes_over_are_noted(
    any_client: TestClient, changes: dict[str, Any]
) -> None:
    made = make(any_client, cron="0 * * * *", zone="UTC", overlap="queue")
    path = f"{PATH}/{made['id']}"
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    put_back(any_client, made["id"], planned_at=hour - timedelta(hours=2), next_fire_at=hour + timedelta(seconds=5))
    changed = any_client.patch(path, json=changes).json()
    assert changed["next_fire_at"] is None or datetime.fromisoformat(changed["next_fire_at"]) > hour
    fires = any_client.get(f"{path}/fires").json()["items"]
    assert [datetime.fromisoformat(fire["fire_at"]) for fire in fires] == [hour - timedelta(hours=n) for n in range(3)]
    assert {(fire["status"], fire["reason"]) for fire in fires} == {
        ("skipped", "The schedule was changed while it was due.")
    }


def test_a_change_before_a_fire_is_due_notes_nothing(client: TestClient) -> None:
    made = make(client)
    client.patch(f"{PATH}/{made['id']}", json={"cron": "30 4 * * *"})
    assert client.get(f"{PATH}/{made['id']}/fires").json()["items"] == []


def test_a_schedule_that_is_over_can_be_changed_but_for_its_times(client: TestClient) -> None:
    made = make(client, end_at="2090-01-01T00:00:00Z")
    path = f"{PATH}/{made['id']}"
    put_back(client, made["id"], end_at=datetime(2020, 1, 1, tzinfo=UTC), next_fire_at=None, planned_at=None)
    over = client.get(path).json()
    assert (over["enabled"], over["next_fire_at"], over["coming"]) == (True, None, [])
    body = {name: over[name] for name in ("name", "cron", "zone", "template", "jitter_seconds", "start_at", "end_at")}
    assert client.patch(path, json=body | {"keep": 7}).json()["keep"] == 7
    assert client.patch(path, json={"cron": "30 4 * * *"}).status_code == 422


def test_what_waits_is_told_from_what_its_jitter_delays(client: TestClient) -> None:
    made = make(client, overlap="queue", jitter_seconds=24 * 3600)
    path = f"{PATH}/{made['id']}"
    jitter = datetime.fromisoformat(made["starts_at"]) - datetime.fromisoformat(made["next_fire_at"])
    assert jitter > timedelta(minutes=1)
    late = datetime.fromisoformat(made["next_fire_at"]) - timedelta(weeks=520)
    rhythm = Rhythm(Timetable.parse(made["cron"], made["zone"]), made["id"], made["jitter_seconds"])
    put_back(client, made["id"], planned_at=late, next_fire_at=rhythm.due(late))
    assert not client.get(path).json()["waiting"]
    put_back(client, made["id"], next_fire_at=datetime.now(UTC) + timedelta(seconds=5))
    assert client.get(path).json()["waiting"]
    put_back(client, made["id"], overlap="skip")
    assert client.get(path).json()["waiting"]  # for its data set then


def test_one_schedule_comes_with_its_next_five_fires(client: TestClient) -> None:
    made = make(client, cron="30 2 * * *", start_at="2027-03-26T12:00:00Z")
    path = f"{PATH}/{made['id']}"
    told = client.get(path, params={"user_zone": "America/New_York"}).json()["coming"]
    assert [fire["at"] for fire in told] == [
        "2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z", "2027-03-30T00:30:00Z",
        "2027-03-31T00:30:00Z",
    ]  # fmt: skip
    assert (told[1]["local"], told[1]["yours"]) == ("Sun 2027-03-28 03:00 CEST", "Sat 2027-03-27 21:00 EDT")
    assert [fire["yours"] for fire in made["coming"]] == [None] * 5
    assert client.patch(path, json={"enabled": False}).json()["coming"] == []
    odd = client.get(path, params={"user_zone": "Mars/Phobos"})
    assert (odd.status_code, odd.json()["errors"][0]["field"]) == (422, "user_zone")


def test_a_schedule_whose_template_has_broken_can_still_be_paused(client: TestClient) -> None:
    made = make(client)
    with writing(engine_of(client)) as session:
        catalog.publish_datasets(session, [], published_by="test")
    assert client.patch(f"{PATH}/{made['id']}", json={"enabled": False}).status_code == 200
    assert client.post(f"{PATH}/{made['id']}/run").status_code == 422


def test_run_now_starts_a_search_each_time_and_a_key_makes_it_one(any_client: TestClient) -> None:
    made = make(any_client, enabled=False, priority=2)
    path = f"{PATH}/{made['id']}"
    first = any_client.post(f"{path}/run", headers={"Idempotency-Key": "a"})
    assert first.status_code == 201
    again = any_client.post(f"{path}/run", headers={"Idempotency-Key": "a"})
    other = any_client.post(f"{path}/run")
    assert again.json() == first.json()
    assert other.json()["search_id"] != first.json()["search_id"]
    search = any_client.get(first.headers["Location"]).json()
    assert (search["schedule_id"], search["priority"]) == (made["id"], 2)
    assert search["name"].startswith("weekly 20")
    fires = any_client.get(f"{path}/fires").json()["items"]
    assert [fire["id"] for fire in fires] == [other.json()["id"], first.json()["id"]]
    assert {fire["reason"] for fire in fires} == {"Started by hand."}
    page = any_client.get(f"{path}/fires?limit=1").json()
    rest = any_client.get(f"{path}/fires", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert [page["items"][0]["id"], rest["items"][0]["id"]] == [fire["id"] for fire in fires]
    assert rest["next_cursor"] is None


def test_secrets_are_kept_and_never_shown(client: TestClient) -> None:
    target = {"channel": "webhook", "target": "https://1.1.1.1/hook", "secret": SECRET}
    made = make(client, notify=[target])
    path = f"{PATH}/{made['id']}"
    assert made["notify"] == [
        {"channel": "webhook", "target": target["target"], "events": ["finished", "failed"], "signed": True}
    ]
    mail = {"channel": "email", "target": "team@lab.example"}
    body = {"notify": [{"channel": "webhook", "target": target["target"], "events": ["failed"]}, mail]}
    changed = client.patch(path, json=body)
    assert changed.status_code == 200, changed.text
    assert SECRET not in changed.text + client.get(PATH).text + client.get(path).text
    with reading(engine_of(client)) as session:
        kept = session.scalars(select(Schedule.notify)).one()
    assert [each.get("secret") for each in kept] == [SECRET, None]
    assert client.post(f"{path}/test").status_code == 202
    told = client.get(f"{path}/deliveries").json()["items"]
    assert {(each["channel"], each["status"], each["event"]) for each in told} == {
        ("webhook", "pending", "test"), ("email", "pending", "test"),
    }  # fmt: skip
    assert SECRET not in client.get(f"{path}/deliveries").text
    assert client.post(f"{PATH}/{make(client, name='quiet')['id']}/test").status_code == 409


def test_an_expression_is_explained_while_it_is_written(client: TestClient) -> None:
    body = {"cron": "30 2 * * *", "zone": "Europe/Berlin", "user_zone": "America/New_York", "count": 3}
    start = {"start_at": "2027-03-26T12:00:00Z"}
    told = client.post(f"{PATH}/preview", json=body | start).json()
    assert [fire["at"] for fire in told["fires"]] == [
        "2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z",
    ]  # fmt: skip
    assert told["fires"][1]["local"] == "Sun 2027-03-28 03:00 CEST"
    assert told["fires"][1]["yours"] == "Sat 2027-03-27 21:00 EDT"
    assert told["meaning"] == "At 02:30 every day"
    wrong = client.post(f"{PATH}/preview", json={"cron": "61 * * * *"})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["field"] == "cron"
    odd = client.post(f"{PATH}/preview", json=body | {"user_zone": "Mars/Phobos"}).json()
    assert odd["errors"][0]["field"] == "user_zone"


def test_a_fire_is_compared_with_the_search_before(any_client: TestClient) -> None:
    template = {**TEMPLATE, "confirm": {"top": 1, "seeds": 3}}
    made = make(any_client, template=template)
    path = f"{PATH}/{made['id']}"
    weak, strong = architecture(("se", {"reduction": 4})), architecture(("cbam", {"reduction": 4}))
    bounds = {"objectives": [
        {"metric": "top1", "goal": "max", "best": 1.0, "worst": 0.0},
        {"metric": "macs", "goal": "min", "best": 0, "worst": 20_000},
    ]}  # fmt: skip
    fires = []
    for found in ((weak, 0.6), (strong, 0.8)):
        fires.append(any_client.post(f"{path}/run").json())
        driver = Driver(engine_of(any_client), fires[-1]["search_id"])
        driver.progress(bounds=bounds)
        driver.trial(found[0], top1=found[1])
        for seed in (1, 2, 3):
            driver.trial(found[0], phase="confirm", role="confirm", seed=seed, top1=found[1] + 0.001 * seed)
        driver.end()
    first = any_client.get(f"{path}/fires/{fires[0]['id']}/comparison").json()
    assert not first["comparable"]
    told = any_client.get(f"{path}/fires/{fires[1]['id']}/comparison").json()
    assert told["comparable"]
    assert told["hypervolume"]["before"] == pytest.approx(0.6 * 0.5)
    assert told["hypervolume"]["after"] == pytest.approx(0.8 * 0.5)
    assert told["moved"]["verdict"] == "improved"
    assert [point["key"] for point in told["gained"]] == [strong.key]
    assert [point["key"] for point in told["lost"]] == [weak.key]
    assert [(each["site"], each["modules"]) for each in told["entered"]] == [("3.1.residual", "cbam")]
    assert [(each["site"], each["modules"]) for each in told["left"]] == [("3.1.residual", "se")]
    assert told["reference_point"] == {"top1": 0.0, "macs": 20_000}
    assert "moved forward" in told["summary"]
    shown = any_client.get(f"/schedules/{made['id']}/fires/{fires[1]['id']}").text
    before = fires[0]["search_id"]
    assert f'href="/searches/{before}"' in shown
    lost = f'href="/trials/{told["lost"][0]["trial_id"]}"'
    assert lost in shown
    with writing(engine_of(any_client)) as session:
        fire = schedules.fire(session, made["id"], fires[1]["id"])
        kept = {name: value for name, value in told.items() if name not in ("fire_id", "final", "summary")}
        fire.comparison, fire.settled_at = kept, datetime.now(UTC)  # as a dispatcher does
        searches.delete(session, before)
    later = any_client.get(f"/schedules/{made['id']}/fires/{fires[1]['id']}").text
    assert (before in later, lost in later) == (False, False)
    assert "no longer kept" in later


def test_a_templates_priority_is_the_schedules_unless_they_differ(client: TestClient) -> None:
    urgent = {**TEMPLATE, "priority": 8}
    made = make(client, template=urgent)
    assert made["priority"] == 8
    assert make(client, name="both", template=urgent, priority=8)["priority"] == 8
    assert refused(client, name="differ", template=urgent, priority=3) == ["priority"]
    assert refused(client, name="wrong", template={**TEMPLATE, "priority": 77}) == ["template.priority"]
    changed = client.patch(f"{PATH}/{made['id']}", json={"template": {**TEMPLATE, "priority": 2}})
    assert changed.json()["priority"] == 2


def test_a_commit_whose_acknowledgement_is_lost_does_nothing_twice(
    any_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(engine: Any, work: Any, *, attempts: int) -> Any:
        with writing(engine) as session:
            first = work(session)
        with writing(engine) as session:
            again = work(session)
        assert again == first
        return again

    monkeypatch.setattr(changing, "retrying", lost)
    made = make(any_client, notify=[{"channel": "email", "target": "a@b.example"}])
    path = f"{PATH}/{made['id']}"
    assert any_client.post(f"{path}/run").status_code == 201
    assert len(any_client.get(f"{path}/fires").json()["items"]) == 1
    assert any_client.post(f"{path}/test").status_code in (200, 201, 202)
    assert len(any_client.get(f"{path}/deliveries").json()["items"]) == 1


def test_a_short_secret_is_told_how_long_it_must_be(client: TestClient) -> None:
    hook = {"channel": "webhook", "target": "https://1.1.1.1/x", "secret": "short"}
    answer = client.post(PATH, json=BODY | {"notify": [hook]})
    assert "at least 16 characters" in answer.json()["errors"][0]["message"]
