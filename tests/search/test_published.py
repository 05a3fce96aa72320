"""The published tables, printed beside ours."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from search.cost import MemoryStore
from search.published import Check, Comparison, PublishedRow, check, published

CBAM, AW = "CBAM (Woo 2018), table 4", "AW-convolution (Zhu 2021), table 1"


@pytest.fixture(scope="module")
def checks() -> dict[int, Check]:
    return {id(item.row): item for item in check(MemoryStore()) if item.params is not None}


def of(checks: dict[int, Check], source: str) -> list[Check]:
    return [item for item in checks.values() if item.row.source == source]


def rounded(value: int | None, exponent: int, printed: Decimal) -> Decimal:
    """Rounding written out: to the nearest unit of the last printed digit."""
    assert value is not None
    digits = -int(printed.as_tuple().exponent)
    return Decimal(f"{value / 10**exponent:.{digits}f}")


def test_all_48_numbers_of_cbams_table_4(checks: dict[int, Check]) -> None:
    rows = of(checks, CBAM)
    assert len(rows) == 24
    for item in rows:
        assert item.row.params_m is not None
        assert item.row.gmacs is not None
        assert (rounded(item.params, 6, item.row.params_m), rounded(item.macs, 9, item.row.gmacs)) == (
            item.row.params_m,
            item.row.gmacs,
        ), f"{item.row.backbone} {item.row.module}"


def test_parameters_of_aws_table_1(checks: dict[int, Check]) -> None:
    """13 of 17; the other four are ResNet-101's, printed with the increment of 33 blocks in stage 3."""
    rows = of(checks, AW)
    assert len(rows) == 17
    deviating = [item.row for item in rows if item.params_m is not None and item.params_m.verdict == "deviates"]
    assert len(deviating) == 4
    for row in deviating:
        assert row.backbone == "ResNet101"
        assert "33 blocks" in row.params_deviation


def test_the_reason_of_resnet101s_deviation(checks: dict[int, Check]) -> None:
    """Ten more blocks in stage 3 (256 channels, hidden 16, BatchNorm on both layers) give the printed increment."""
    item = next(i for i in of(checks, AW) if (i.row.backbone, i.row.module) == ("ResNet101", "AW-conv"))
    assert item.params is not None
    with_33 = item.params + 10 * (256 * 16 + 16 * 256 + 2 * 16 + 2 * 256)
    assert round(with_33 / 1e6, 2) == pytest.approx(44.95, abs=0.0051)


def test_every_deviation_has_a_reason_and_every_reason_a_deviation(checks: dict[int, Check]) -> None:
    for item in checks.values():
        for comparison in (item.params_m, item.gmacs):
            if comparison is not None and comparison.verdict == "deviates":
                assert comparison.reason, f"{item.row.source}: {item.row.backbone} {item.row.module} {comparison}"
        assert not (item.params_m and item.params_m.verdict == "exact" and item.row.params_deviation), item
        assert not (item.gmacs and item.gmacs.verdict == "exact" and item.row.gmacs_deviation), item


def test_ours_equal_an_independent_count(checks: dict[int, Check]) -> None:
    """`recomputed_…` were counted by other code, from the papers' text."""
    for item in checks.values():
        row = item.row
        if row.recomputed_params_m is not None:
            assert rounded(item.params, 6, row.recomputed_params_m) == row.recomputed_params_m, row
        if row.recomputed_gmacs is not None:
            assert rounded(item.macs, 9, row.recomputed_gmacs) == row.recomputed_gmacs, row


def test_rows_are_typed_and_metrics_are_fractions() -> None:
    rows = published()
    assert len(rows) == 117
    for row in rows:
        assert row.metrics, row
        assert all(0 < value < 1 for value in row.metrics.values()), row
        assert row.source
        assert row.dataset
        assert row.seen_in
        if row.params_deviation or row.gmacs_deviation:
            assert row.rebuild is not None


def find(backbone: str, module: str, where: Callable[[PublishedRow], bool]) -> PublishedRow:
    return next(row for row in published() if (row.backbone, row.module) == (backbone, module) and where(row))


def test_metrics_keep_what_was_printed() -> None:
    """CBAM on ResNet-50: 22.66 and 6.31 % of error; AW on detection: mAP 37.76, AP50 59.17, AP75 40.91."""
    row = find("ResNet50", "CBAM", lambda row: row.source == CBAM)
    assert row.metrics == {"top1": 0.7734, "top5": 0.9369}
    row = find("ResNet101-FPN Faster R-CNN", "AW-conv", lambda row: True)
    assert row.metrics == {"box_ap": 0.3776, "ap50": 0.5917, "ap75": 0.4091}
    row = find("R50-D8", "PAM+CAM", lambda row: True)
    assert row.metrics == {"miou": 0.7874}


def test_json_for_the_catalog() -> None:
    data = published()[1].to_json()
    assert data["params_m"] == 11.78
    assert data["metrics"]["top1"] == 0.7059
    assert "rebuild" not in data


def test_every_row_is_checked_in_order_built_here_or_not() -> None:
    found = list(check(MemoryStore()))
    assert [item.row for item in found] == list(published())
    for item in found:
        assert (item.params is None) == (item.macs is None) == (item.row.rebuild is None)
        assert (item.params_m is None) == (item.params is None or item.row.params_m is None)
        assert not item.unexplained


def test_a_check_as_json() -> None:
    exact = Check(published()[1], 11_778_592, 1_814_168_576, Comparison(Decimal("11.78"), Decimal("11.78"), "unused"))
    assert exact.to_json() == {
        "params": 11_778_592,
        "macs": 1_814_168_576,
        "params_m": {"printed": 11.78, "ours": 11.78, "verdict": "exact", "reason": ""},
        "gmacs": None,
    }
    deviating = Comparison(Decimal("44.95"), Decimal("44.86"), "33 blocks")
    assert deviating.to_json() == {"printed": 44.95, "ours": 44.86, "verdict": "deviates", "reason": "33 blocks"}
    assert not Check(published()[0], 1, 1, deviating).unexplained
    assert Check(published()[0], 1, 1, Comparison(Decimal("1.0"), Decimal("1.1"), "")).unexplained
