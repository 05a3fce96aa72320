"""GET searches/{id}/effects: what the search module says of the rows that are there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from search.architecture import Architecture, Module
from search.sites import Site
from service.effects import logic
from tests.service.support import BACKBONE, Driver, architecture, engine_of, submit

PLACED: list[tuple[int, str, int]] = [
    (stage, kind, ratio) for stage in (1, 2, 3) for kind in ("se", "cbam") for ratio in (2, 4, 8)
]


@pytest.fixture
def search(any_client: TestClient) -> tuple[TestClient, str, Driver]:
    found = submit(any_client)["id"]
    return any_client, found, Driver(engine_of(any_client), found)


def explore(driver: Driver, worth: float) -> None:
    rng = np.random.default_rng(0)
    driver.trial(architecture(), role="baseline", phase="controls", top1=0.9, macs=10_000)
    for stage, kind, ratio in PLACED:
        gain = worth if (stage, kind) == (3, "cbam") else 0.0
        top1 = 0.9 + gain + float(rng.normal(0, 0.002))
        driver.trial(architecture((kind, {"reduction": ratio}), stage=stage), top1=top1, macs=10_100)


def confirm(driver: Driver, gain: float) -> None:
    rng = np.random.default_rng(1)
    trained = ((architecture(), 0.9, 10_000), (architecture(("cbam", {"reduction": 4})), 0.9 + gain, 10_100))
    for seed in (1, 2, 3, 4):
        for found, mean, macs in trained:
            test_top1 = mean + float(rng.normal(0, 0.002))
            driver.trial(
                found, phase="confirm", role="confirm", seed=seed, macs=macs, top1=0.9, test_top1=test_top1
            )  # fmt: skip


def effects(client: TestClient, search_id: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/searches/{search_id}/effects")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_empty_search_says_nothing(search: tuple[TestClient, str, Driver]) -> None:
    client, found, _ = search
    told = effects(client, found)
    assert (told["finished"], told["choices"], told["sites"], told["finding"]) == (0, [], [], None)
    assert told["stages"] == {"1": 1, "2": 1, "3": 1}


def test_choices_and_sites_of_the_finished_trials(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    explore(driver, 0.03)
    driver.trial(architecture(("se", {"reduction": 1})), status="failed")
    confirm(driver, 0.0)
    told = effects(client, found)
    assert (told["finished"], told["trials"], told["metric"]) == (19, 19, "top1")
    stage = next(e for e in told["choices"] if (e["factor"], e["stage"]) == ("stage", 3))
    assert (stage["trials"], stage["reference_trials"], stage["against"]) == (6, 13, "nothing")
    assert stage["gain"]["low"] <= 0.015 <= stage["gain"]["high"]
    site = next(s for s in told["sites"] if (s["stage"], s["kind"]) == (3, "cbam"))
    assert (site["trials"], site["block"]) == (3, 1)
    front = client.get(f"/api/v1/searches/{found}/front").json()["points"]
    on = [p for p in front if "3.1.residual" in p["architecture"]["placements"]]
    assert told["front"] == len(front)
    assert next(s for s in told["sites"] if (s["stage"], s["kind"]) == (3, ""))["front"] == len(on)


def test_a_confirmed_gain_is_told_in_a_sentence_and_on_the_page(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    explore(driver, 0.03)
    assert effects(client, found)["finding"] is None  # one seed each proves nothing
    confirm(driver, 0.03)
    finding = effects(client, found)["finding"]
    assert finding["source"] == "confirmed"
    assert finding["gain"]["low"] <= 0.03 <= finding["gain"]["high"]
    assert finding["sentence"].startswith("CBAM in stage 3 only: +")
    assert finding["sentence"].endswith(" points for +1.0 % MACs")


def test_a_gain_within_the_noise_is_not_told(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    explore(driver, 0.0)
    confirm(driver, 0.0)
    assert effects(client, found)["finding"] is None


def test_it_is_sent_only_when_something_happened(search: tuple[TestClient, str, Driver]) -> None:
    client, found, driver = search
    url = f"/api/v1/searches/{found}/effects"
    etag = client.get(url).headers["etag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    driver.trial(architecture(), top1=0.5)
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200


def test_very_many_trials_are_sampled_with_the_whole_front(
    search: tuple[TestClient, str, Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, found, driver = search
    explore(driver, 0.03)
    whole = effects(client, found)
    monkeypatch.setattr(logic, "MOST_TRIALS", 8)
    logic._KEPT.clear()
    told = effects(client, found)
    assert told["finished"] == 19
    assert 8 <= told["trials"] < 19
    assert told["front"] == whole["front"]


def test_a_choice_that_came_with_another_is_adjusted_for_it(search: tuple[TestClient, str, Driver]) -> None:
    """SE in stage 1 is worth nothing, but mostly comes with CBAM in stage 3, which is worth 3 points."""
    client, found, driver = search
    rng, rows = np.random.default_rng(2), []
    for seed in range(40):
        late, early = seed % 2 == 0, seed % 2 == 0 or seed % 5 == 0
        placed = {Site(3, 1, "residual"): [Module.make("cbam", reduction=4)]} if late else {}
        placed |= {Site(1, 1, "residual"): [Module.make("se", reduction=4)]} if early != (seed % 6 == 0) else {}
        top1 = 0.9 + 0.03 * late + float(rng.normal(0, 0.002))
        rows.append([1.0, float(late), float(Site(1, 1, "residual") in placed), top1])
        driver.trial(Architecture.make(BACKBONE, placed), seed=seed, top1=top1, macs=10_000 + 50 * len(placed))
    told = effects(client, found)
    assert told["adjustment"] == {"method": "least_squares", "parameters": 3}
    early_se = next(e for e in told["choices"] if (e["factor"], e["stage"], e["choice"]) == ("module", 1, "se"))
    assert early_se["gain"]["low"] > 0.002
    table = np.asarray(rows)
    solved = np.linalg.lstsq(table[:, :3], table[:, 3], rcond=None)[0]
    assert early_se["adjusted"]["gain"]["value"] == pytest.approx(solved[2])
    assert abs(early_se["adjusted"]["gain"]["value"]) < 0.003
    assert early_se["adjusted"]["extra_macs"] == pytest.approx(50)


def test_gains_of_a_loss_are_positive_where_it_falls_and_come_with_its_unit(any_client: TestClient) -> None:
    found = submit(any_client, objectives=[{"metric": "loss"}, {"metric": "macs"}])["id"]
    driver = Driver(engine_of(any_client), found)
    rng = np.random.default_rng(0)
    for seed in range(20):
        late = seed % 2 == 0
        placed = architecture(("cbam", {"reduction": 4})) if late else architecture()
        driver.trial(placed, seed=seed, top1=0.9, loss=0.5 - 0.2 * late + float(rng.normal(0, 0.01)))
    told = effects(any_client, found)
    assert (told["metric"], told["title"], told["goal"], told["unit"]) == (
        "loss", "Validation cross-entropy", "min", "nat",
    )  # fmt: skip
    stage = next(e for e in told["choices"] if (e["factor"], e["stage"]) == ("stage", 3))
    assert stage["gain"]["low"] <= 0.2 <= stage["gain"]["high"]
    report = any_client.get(f"/searches/{found}/report").text
    assert "validation cross-entropy, in nat; less is better" in report
    assert '<span class="unit">nat</span>' in report
    row = next(e for e in told["choices"] if (e["factor"], e["stage"]) == ("module", 3))["gain"]
    assert f'<td class="num">−{row["value"]:.3f}</td>' in report
    assert f"−{row['high']:.3f} to −{row['low']:.3f}" in report
