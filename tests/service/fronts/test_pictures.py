"""The cells of dominated points, and what is read before anybody asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.fronts import columns, pictures, warming
from service.fronts.pictures import binned
from tests.service.support import Driver, architecture, engine_of, submit


@pytest.fixture
def driver(client: TestClient) -> Driver:
    found = Driver(engine_of(client), submit(client)["id"])
    for place, ratio in enumerate((1, 2, 4, 8)):
        found.trial(architecture(("se", {"reduction": ratio})), top1=0.9 - place / 10, macs=10_000 + 1_000 * place)
    return found


def test_cells_are_those_of_a_histogram() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(0, 1e6, 5000), rng.random(5000)
    grid = binned(x, y)
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=pictures.CELLS)
    found = np.zeros_like(counts)
    for column, row, count in grid.cells:
        found[column, row] = count
    assert np.abs(found - counts).sum() <= 4  # a point on an edge may be rounded to either side
    assert found.sum() == 5000
    assert grid.x == pytest.approx(x_edges, rel=1e-5, abs=1)
    assert grid.y == pytest.approx(y_edges, rel=1e-5)


def test_points_of_one_value_have_a_cell() -> None:
    grid = binned(np.full(3, 7.0), np.array([1.0, 1.0, 2.0]))
    assert sum(count for *_, count in grid.cells) == 3
    assert (grid.x[0], grid.x[-1]) == (6.5, 7.5)


def test_axes_may_be_changed_for_each_other(
    client: TestClient, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST_POINTS", 0)
    pictures.draw.cache_clear()

    def grid(x: str, y: str) -> dict[str, Any]:
        answer = client.get(f"/api/v1/searches/{driver.search_id}/front", params={"x": x, "y": y}).json()
        found: dict[str, Any] = answer["dominated"]["grid"]
        return found

    one, other = grid("top1", "macs"), grid("macs", "top1")
    assert (one["x"], one["y"]) == (other["y"], other["x"])
    assert sorted((j, i, count) for i, j, count in one["cells"]) == sorted(map(tuple, other["cells"]))
    assert one["y"][0] == 11_000


def test_long_searches_are_read_before_anybody_asks(
    client: TestClient, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warming, "LONG", 2)
    warming.read_longest(driver.engine, lambda: False)

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(columns, "_read", refuse)
    front = client.get(f"/api/v1/searches/{driver.search_id}/front").json()
    assert [point["values"]["top1"] for point in front["points"]] == [0.9]
