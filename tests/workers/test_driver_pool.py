"""How many drivers a dispatcher starts."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from workers import driver_pool
from workers.driver_pool import DRIVER_BYTES, drivers_that_fit


def test_drivers_take_half_of_the_memory_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(driver_pool, "CONTAINER_LIMITS", (str(limit),))
    machine = drivers_that_fit()
    assert machine == max(1, psutil.virtual_memory().total // 2 // DRIVER_BYTES)
    limit.write_text("max\n")
    assert drivers_that_fit() == machine
    limit.write_text("2500000000\n")
    assert drivers_that_fit() == 2
    limit.write_text("1000\n")
    assert drivers_that_fit() == 1
