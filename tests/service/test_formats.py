"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from service import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0 MAC"), (999, "999 MAC"), (1_660_000, "1.66 MMAC"), (12_345, "12.3 kMAC"),
        (999_960, "1.00 MMAC"), (4_111_514_624, "4.11 GMAC"), (123_400_000, "123 MMAC"),
    ],
)  # fmt: skip
def test_macs(value: float | None, text: str) -> None:
    assert formats.macs(value) == text


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [(0.8, "top1", "80.00 %"), (12_345, "macs", "12.3 kMAC"), (70_100, "params", "70.1 k"),
     (3.14159, "latency_ms", "3.142 ms"), (0.51234, "loss", "0.5123 nat")],
)  # fmt: skip
def test_values_of_metrics(value: float, metric: str, text: str) -> None:
    assert formats.measure(value, metric) == text


@pytest.mark.parametrize(
    ("gain", "text"), [(None, "–"), (0.0, "±0.00"), (0.0123, "+1.23"), (-0.004, "−0.40"), (0.000001, "±0.00")]
)
def test_points(gain: float | None, text: str) -> None:
    assert formats.points(gain) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


def test_age() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert formats.age(now - timedelta(seconds=200), now) == "3 min ago"
    assert formats.age(now, now) == "just now"


def test_relative() -> None:
    assert formats.relative(101, 100) == "+1.00 %"
    assert formats.relative(100, 100) == "±0.00 %"
    assert formats.relative(5, 0) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "about 5 s"), (42, "about 40 s"), (61, "about 1 min"), (128, "about 2 min"), (590, "about 10 min"),
        (725, "about 12 min"), (7190, "about 2 h"), (11_300, "about 3 h 10 min"), (36_100, "about 10 h"),
        (400_000, "about 4 d 15 h"), (None, "–"),
    ],
)  # fmt: skip
def test_estimates_are_round(seconds: float | None, text: str) -> None:
    assert formats.roughly(seconds) == text
