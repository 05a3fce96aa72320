"""Schedules on pages: from the form to the history, in a browser; and for everybody (axe)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine, update

from db.engine import make_engine, writing
from db.models import Evaluation, Trial
from search.architecture import Architecture
from search.describe import describe
from service.client import Client
from service.dashboard.drafts import repeated
from service.settings import ServiceSettings
from tests.service.support import SPEC, Driver, architecture, engine_of, publish_digits, served

expect.set_options(timeout=20_000)  # the tests share two cores with others
SERIOUS = {"serious", "critical"}
BODY: dict[str, Any] = {
    "name": "weekly <b>", "cron": "0 2 * * SUN", "zone": "Europe/Berlin",
    "template": {**SPEC, "name": "weekly {{ fire_at }}"},
    "notify": [{"channel": "email", "target": "team@lab.example"}],
}  # fmt: skip


def opened_page(browser: Browser, **options: Any) -> Iterator[Page]:
    context = browser.new_context(reduced_motion="reduce", timezone_id="America/New_York", **options)
    found = context.new_page()
    troubles: list[str] = []
    found.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: troubles.append(str(error)))
    found.set_default_timeout(40_000)
    yield found
    context.close()
    # what is refused is told in the page; the browser notes the answer's status all the same
    assert [text for text in troubles if not any(code in text for code in ("412", "422"))] == []


@pytest.fixture
def house(sqlite_url: str) -> Iterator[str]:
    """The address of a service with a data set and nothing else: no costs are counted, so that torch is not loaded."""
    engine = make_engine(sqlite_url)
    publish_digits(engine)
    engine.dispose()
    with served(ServiceSettings(database_url=sqlite_url, event_poll_seconds=0.02)) as url:
        yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    yield from opened_page(browser, viewport={"width": 1280, "height": 900})


@pytest.fixture(params=[("light", 1280), ("dark", 375)], ids=["light-1280", "dark-phone"])
def seen_page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    scheme, width = request.param
    yield from opened_page(browser, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)


def test_from_a_search_to_its_schedule_and_its_history(page: Page, house: str) -> None:
    with Client(house) as client:
        search = client.submit(SPEC)
    page.goto(f"{house}/searches/{search['id']}")
    page.get_by_role("link", name="Schedule", exact=True).click()
    assert "{{ fire_at }}" in page.get_by_label("The search as YAML").input_value()
    page.get_by_label("Name", exact=True).fill("weekly")
    cron, zone = page.get_by_label("Minute, hour, day"), page.get_by_label("Time zone")
    expect(zone).to_have_value("America/New_York")
    cron.fill("61 * * * *")
    expect(page.locator("#coming")).to_contain_text("minute")
    zone.fill("Europe/Berlin")
    cron.fill("30 2 * * SUN")
    expect(page.locator("#coming")).to_contain_text("At 02:30 on Sunday, Europe/Berlin.")
    expect(page.locator("#coming li")).to_have_count(5)
    expect(page.locator("#coming li").first).to_contain_text("for you Sat")
    page.get_by_label("E-mail addresses").fill("team@lab.example")
    page.get_by_role("button", name="Repeat this search").click()
    expect(page.get_by_role("heading", name="weekly")).to_be_visible()
    expect(page.get_by_role("region", name="Next times").locator("tbody tr")).to_have_count(5)
    page.get_by_role("button", name="Run now").click()
    history = page.get_by_role("region", name="History as a table")
    expect(history.locator("tbody tr")).to_have_count(1)
    expect(history).to_contain_text("Started by hand.")
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("list", name="Latest messages")).to_contain_text("test to team@lab.example")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Nothing: it is paused.")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("region", name="Next times").locator("tbody tr")).to_have_count(5)
    page.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("E-mail addresses")).to_have_value("team@lab.example")
    page.get_by_label("Keep ended searches").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The newest 3 ended searches are kept.")).to_be_visible()
    page.get_by_role("link", name="Schedules").first.click()
    expect(page.get_by_role("link", name="weekly")).to_be_visible()
    page.get_by_role("link", name="weekly").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Nothing repeats itself yet")).to_be_visible()


def test_a_form_that_was_overtaken_says_so(page: Page, house: str) -> None:
    with Client(house) as client:
        made = client.add_schedule(BODY)
        page.goto(f"{house}/schedules/{made['id']}/edit")
        client.edit_schedule(made["id"], {"keep": 2})
    page.get_by_label("Priority").fill("9")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("has changed")


def events_of(made: dict[str, Any]) -> dict[str, list[str]]:
    return {each["target"]: each["events"] for each in made["notify"]}


def test_saving_the_form_leaves_alone_what_was_not_touched(page: Page, house: str) -> None:
    template = {**SPEC, "name": "weekly {{ fire_at }}", "confirm": {"top": 1, "seeds": 3}}
    notify = [
        {"channel": "email", "target": "team@lab.example", "events": ["improved"]},
        {"channel": "email", "target": "ops@lab.example", "events": ["failed"]},
        {"channel": "webhook", "target": "https://1.1.1.1/x", "events": ["finished"], "secret": "s" * 16},
    ]
    body = BODY | {"template": template, "notify": notify, "start_at": "2026-01-01T02:00:30Z"}
    with Client(house) as client:
        made = client.add_schedule(body)
        page.goto(f"{house}/schedules/{made['id']}/edit")
        expect(page.get_by_text("others of other things")).to_be_visible()
        page.get_by_label("Priority").fill("9")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="weekly <b>")).to_be_visible()
        saved = client.schedule(made["id"])
        assert (saved["priority"], saved["start_at"]) == (9, made["start_at"])
        assert events_of(saved) == events_of(made)
        page.get_by_role("link", name="Edit").click()
        page.get_by_label("when finished").check()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="weekly <b>")).to_be_visible()
        assert {tuple(sorted(each)) for each in events_of(client.schedule(made["id"])).values()} == {
            ("finished", "improved")
        }


def test_web_hooks_are_added_changed_and_removed(page: Page, house: str) -> None:
    """Each box and button is found by the name that a screen reader says."""
    first, second, third = (f"https://1.1.1.1/{name}" for name in ("first", "second", "third"))
    hooks = [
        {"channel": "webhook", "target": first, "events": ["finished"], "secret": "s" * 16},
        {"channel": "webhook", "target": second, "events": ["failed"], "secret": "t" * 16},
    ]
    address, secret, remove = (
        "Address of web hook {}".format,
        "Secret of web hook {}".format,
        "Remove web hook {}".format,
    )
    with Client(house) as client:
        made = client.add_schedule(BODY | {"notify": hooks})
        page.goto(f"{house}/schedules/{made['id']}/edit")
        expect(page.get_by_role("group", name="Web hook 2")).to_be_visible()
        expect(page.get_by_label(secret(1))).to_have_attribute("placeholder", "as it is")
        page.get_by_role("button", name="Add a web hook").click()
        expect(page.get_by_label(address(3))).to_be_focused()
        page.get_by_label(address(3)).fill(third)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("notify.2.secret: A web hook needs a secret")
        page.get_by_label(secret(3)).fill("u" * 16)
        page.get_by_role("button", name=remove(1)).click()
        expect(page.get_by_label(address(1))).to_be_focused()
        expect(page.get_by_label(address(1))).to_have_value(second)
        expect(page.get_by_label(address(3))).to_have_count(0)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="weekly <b>")).to_be_visible()
        saved = client.schedule(made["id"])
        assert events_of(saved) == {second: ["failed"], third: ["finished"]}
        page.get_by_role("link", name="Edit").click()
        page.get_by_label(address(1)).fill(first)
        expect(page.get_by_label(secret(1))).to_have_attribute("placeholder", "16 characters or more")
        page.get_by_role("button", name=remove(2)).click()
        expect(page.get_by_role("button", name="Add a web hook")).to_be_focused()


def test_a_repeated_search_says_what_was_filled_in(client: TestClient) -> None:
    previous = [{"1.1.residual": {"kind": "se", "reduction": 4}}]
    asked = {**SPEC, "priority": 7, "strategy": {"seed": 3, "previous": previous}}
    search = client.post("/api/v1/searches", json=asked).json()
    shown = client.get(f"/schedules/new?search={search['id']}").text
    assert "not as it was written" in shown
    assert "not as it was written" not in client.get("/schedules/new").text
    assert re.search(r'name="priority"[^>]*value="7"', shown)
    template = yaml.safe_load(unescape(shown.partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0]))
    assert template["name"] == f"{SPEC['name']} {{{{ fire_at }}}}"
    assert "priority" not in template
    assert template["strategy"]["seed"] == 3
    assert "previous" not in template["strategy"]
    made = client.post("/api/v1/schedules", json=BODY | {"template": template})
    assert made.status_code == 201, made.text


def test_a_repeated_search_takes_the_weights_as_they_are_at_each_fire() -> None:
    template = repeated("s", {"name": "s", "init": {"weights": "mine", "fingerprint": "f" * 64}})
    assert template["init"] == {"weights": "mine"}


def test_a_refusal_stays_on_the_page_when_it_is_refreshed(page: Page, house: str) -> None:
    with Client(house) as client:
        made = client.add_schedule(BODY)
        page.goto(f"{house}/schedules/{made['id']}")
        client.edit_schedule(made["id"], {"keep": 2})
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert")).to_contain_text("has changed")
    with page.expect_response(f"**/live/schedules/{made['id']}"):
        pass
    expect(page.get_by_text("The newest 2 ended searches are kept.")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("has changed")


def test_no_serious_violation(seen_page: Page, house: str) -> None:
    with Client(house) as client:
        made = client.add_schedule(BODY)
        fire = client.run_schedule(made["id"])
        client.test_messages(made["id"])
    one = f"/schedules/{made['id']}"
    for path in ("/schedules", one, f"{one}/edit", f"{one}/fires/{fire['id']}", "/schedules/new"):
        seen_page.goto(house + path)
        seen_page.wait_for_load_state("networkidle")
        found = Axe().run(seen_page)
        serious = [v["id"] for v in found.response["violations"] if v["impact"] in SERIOUS]
        assert serious == [], (path, serious)
        assert seen_page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path


def test_pages_escape_what_users_write_and_list_what_comes(client: TestClient) -> None:
    site = client
    made = site.post("/api/v1/schedules", json=BODY).json()
    listed = site.get("/schedules").text
    assert "weekly &lt;b&gt;" in listed
    assert "weekly <b>" not in listed
    assert "At 02:00 on Sunday" in listed
    following = datetime.fromisoformat(made["next_fire_at"])
    assert following > datetime.now(UTC)
    one = site.get(f"/schedules/{made['id']}").text
    assert one.count("02:00 CE") == 5
    assert site.get(f"/schedules/{made['id'][:-4]}0000").status_code == 404
    assert site.get("/schedules/new?search=x").status_code == 404


BOUNDS = {"objectives": [
    {"metric": "top1", "goal": "max", "best": 1.0, "worst": 0.0},
    {"metric": "macs", "goal": "min", "best": 0, "worst": 20_000},
]}  # fmt: skip


def fired(engine: Engine, search_id: str, found: Architecture, top1: float, **conditions: Any) -> None:
    """Runs a fire's search: one architecture, confirmed with three seeds. conditions: columns of its evaluation."""
    driver = Driver(engine, search_id)
    driver.progress(bounds=BOUNDS)
    trial = driver.trial(found, top1=top1)
    for seed in (1, 2, 3):
        driver.trial(found, phase="confirm", role="confirm", seed=seed, top1=top1 + 0.001 * seed)
    with writing(engine) as session:
        known = {"dataset_fingerprint": "d" * 64, "conditions": {"recipe": {"lr": 0.1}}} | conditions
        key = search_id.ljust(64, "0")
        session.add(Evaluation(key=key, architecture_key=found.key, status="finished", results={}, seed=0, epochs=2,
                               **known))  # fmt: skip
        session.flush()
        session.execute(update(Trial).where(Trial.id == trial).values(evaluation_key=key))
    driver.end()


@pytest.mark.parametrize(
    ("changed", "words", "verdict"),
    [
        ({}, "the same", "improved"),
        ({"dataset_fingerprint": "e" * 64}, "other data", "unknown"),
        ({"conditions": {"recipe": {"lr": 0.2}}}, "other training", "unknown"),
        ({"dataset_fingerprint": "e" * 64, "conditions": {"recipe": {"lr": 0.2}}}, "both changed", "unknown"),
    ],
)
def test_a_comparison_says_what_moved_and_what_else_was_not_the_same(
    client: TestClient, changed: dict[str, Any], words: str, verdict: str
) -> None:
    template = {**SPEC, "confirm": {"top": 1, "seeds": 3}}
    path = f"/schedules/{client.post('/api/v1/schedules', json=BODY | {'template': template}).json()['id']}"
    weak, strong = architecture(("se", {"reduction": 4})), architecture(("cbam", {"reduction": 4}))
    for found, top1, conditions in ((weak, 0.6, {}), (strong, 0.8, changed)):
        fire = client.post(f"/api/v1{path}/run").json()
        fired(engine_of(client), fire["search_id"], found, top1, **conditions)
    told = client.get(f"/api/v1{path}/fires/{fire['id']}/comparison").json()
    others = {"other data": (True, False), "other training": (False, True), "both changed": (True, True)}
    assert (told["data_changed"], told["training_changed"]) == others.get(words, (False, False))
    assert told["moved"]["verdict"] == verdict
    shown = client.get(f"{path}/fires/{fire['id']}").text
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", shown))
    assert facts["Data and training"] == words
    assert facts["Hypervolume"] == "0.4000"
    assert facts["Change"] == ("+0.1000" if words == "the same" else "+0.4000")
    assert facts["Several seeds say"] == verdict
    assert ("cannot be compared" in shown) is told["training_changed"]
    assert ("1 of the earlier front has no result in this search" in shown) is (words != "the same")
    assert f"{describe(strong)}</a>" in section(shown, "gained")
    assert "top1 80.00 %, macs 10.0 kMAC" in section(shown, "gained")
    assert "has not ended" not in shown
    assert "<code>3.1.residual</code> cbam" in section(shown, "gained")
    assert f"{describe(weak)}</a>" in section(shown, "lost")
    assert "<code>3.1.residual</code> se" in section(shown, "lost")
    assert f"/compare?search={told['search_id']}&amp;search={told['previous_search_id']}" in shown


def section(html: str, name: str) -> str:
    return html.partition(f'aria-labelledby="{name}-title"')[2].partition("</section>")[0]
