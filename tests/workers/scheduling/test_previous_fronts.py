"""What the search before has found, and what of it the next one of a schedule begins with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from db.engine import writing
from db.models import Schedule
from search.architecture import Architecture, Backbone, Module
from search.recipes import EVALUATION_VERSION
from search.sites import Site
from tests.workers.conftest import ENTRY
from tests.workers.scheduling.conftest import TEMPLATE, House


def _architectures(house: House) -> list[Architecture]:
    backbone = Backbone.make("resnet8", width=16)
    return [
        Architecture.make(backbone, {Site(stage, 1, "residual"): [Module.make(kind, reduction=4)]})
        for stage, kind in ((1, "se"), (2, "se"), (3, "cbam"))
    ]


def test_previous_points_are_the_front_of_the_search_before(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", template={**TEMPLATE, "strategy": {"points": "previous"}})
    house.at("2026-03-01T01:00")
    first = house.searches(key)[0]
    assert first.spec["strategy"]["previous"] == []
    cheap, dominated, dear = _architectures(house)
    house.train(first.id, [(cheap, 0.6, 100), (dominated, 0.5, 150), (dear, 0.8, 200)], ENTRY.fingerprint)
    house.at("2026-03-01T02:00")
    points = house.searches(key)[1].spec["strategy"]["previous"]
    assert points == [dear.to_json()["placements"], cheap.to_json()["placements"]]


def test_grown_data_bring_the_previous_front_along_unasked(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    house.at("2026-03-01T01:00")
    cheap, dominated, _ = _architectures(house)
    results = [(cheap, 0.6, 100), (dominated, 0.5, 150)]
    trained_on = ENTRY.resolve().fingerprint
    house.train(house.searches(key)[0].id, results, trained_on)
    house.at("2026-03-01T02:00")
    assert house.searches(key)[1].spec["strategy"]["previous"] == []
    house.train(house.searches(key)[1].id, results, trained_on)
    house.publish("e" * 64)
    house.at("2026-03-01T03:00")
    assert house.searches(key)[2].spec["strategy"]["previous"] == [cheap.to_json()["placements"]]


def test_changed_training_brings_the_whole_previous_front_along_whatever_the_budget(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", template={**TEMPLATE, "budget": {"trials": 1}})
    house.at("2026-03-01T01:00")
    cheap, _, dear = _architectures(house)
    results = [(cheap, 0.6, 100), (dear, 0.8, 200)]
    trained_on = ENTRY.resolve().fingerprint
    training = house.searches(key)[0].spec["training"]
    house.train(house.searches(key)[0].id, results, trained_on, {"recipe": _recipe_of(training), "weights": None})
    house.at("2026-03-01T02:00")
    alike = house.searches(key)[1]
    assert (alike.spec["strategy"]["previous"], alike.spec["budget"]["trials"]) == ([], 1)
    house.train(alike.id, results, trained_on, {"recipe": _recipe_of(training) | {"epochs": 99}, "weights": None})
    house.at("2026-03-01T03:00")
    other = house.searches(key)[2]
    assert len(other.spec["strategy"]["previous"]) == other.spec["budget"]["trials"] == 2


def test_training_code_of_another_version_counts_as_changed_training(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    house.at("2026-03-01T01:00")
    cheap, _, dear = _architectures(house)
    trained = {"recipe": _recipe_of(house.searches(key)[0].spec["training"]), "weights": None}
    results, fingerprint = [(cheap, 0.6, 100), (dear, 0.8, 200)], ENTRY.resolve().fingerprint
    house.train(house.searches(key)[0].id, results, fingerprint, trained | {"version": EVALUATION_VERSION})
    house.at("2026-03-01T02:00")
    assert house.searches(key)[1].spec["strategy"]["previous"] == []
    house.train(house.searches(key)[1].id, results, fingerprint, trained | {"version": EVALUATION_VERSION - 1})
    house.at("2026-03-01T03:00")
    assert len(house.searches(key)[2].spec["strategy"]["previous"]) == 2


def _recipe_of(training: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in training.items() if name != "recipe"}


def test_what_a_changed_space_does_not_hold_is_left_out(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", template={**TEMPLATE, "strategy": {"points": "previous"}})
    house.at("2026-03-01T01:00")
    cheap, _, dear = _architectures(house)
    house.train(house.searches(key)[0].id, [(cheap, 0.6, 100), (dear, 0.8, 200)], ENTRY.fingerprint)
    changed = {**TEMPLATE, "strategy": {"points": "previous"}, "space": {"modules": ["none", "se"]}}
    with writing(house.engine) as session:
        session.execute(update(Schedule).where(Schedule.id == key).values(template=changed))
    house.at("2026-03-01T02:00")
    assert house.searches(key)[1].spec["strategy"]["previous"] == [cheap.to_json()["placements"]]
