"""attune cost and attune published against the papers' tables."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from search.published import PublishedRow, published
from service.cli.main import app

TABLE_4 = [row for row in published() if row.source == "CBAM (Woo 2018), table 4"]
BACKBONES = {
    "ResNet18": ["resnet18"],
    "ResNet34": ["resnet34"],
    "ResNet50": ["resnet50", "--stride-in-1x1"],
    "ResNet101": ["resnet101", "--stride-in-1x1"],
    "WideResNet18-1.5": ["wide_resnet18", "--widen", "1.5"],
    "WideResNet18-2.0": ["wide_resnet18", "--widen", "2.0"],
    "ResNeXt50-32x4d": ["resnext50_32x4d", "--stride-in-1x1"],
    "ResNeXt101-32x4d": ["resnext101_32x4d", "--stride-in-1x1"],
}
MODULES = {
    "none": [],
    "SE": ["--module", "se", "--reduction", "16"],
    "CBAM": ["--module", "cbam", "--reduction", "16"],
}


def attune(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


def cost(*arguments: str) -> dict[str, int]:
    result = attune("cost", *arguments, "--image", "3x224x224", "--classes", "1000", "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, int] = json.loads(result.stdout)
    return found


def rounded(value: int, exponent: int, printed: Decimal | None) -> Decimal:
    assert printed is not None
    return Decimal(f"{value / 10**exponent:.{-int(printed.as_tuple().exponent)}f}")


@pytest.mark.parametrize("row", TABLE_4, ids=lambda row: f"{row.backbone} {row.module}")
def test_cost_prints_cbams_table_4(row: PublishedRow) -> None:
    found = cost(*BACKBONES[row.backbone], *MODULES[row.module])
    assert rounded(found["params"], 6, row.params_m) == row.params_m
    assert rounded(found["macs"], 9, row.gmacs) == row.gmacs


def test_cost_of_modules_between_stages() -> None:
    """BAM's own code on ResNet-50, counted by others: 25.9151 M and 4.1713 G multiply-adds."""
    code = ("--option", "combine=product", "--position", "stage_end", "--stages", "1,2,3")
    found = cost("resnet50", "--module", "bam", "--reduction", "16", *code)
    assert (round(found["params"] / 1e6, 4), round(found["macs"] / 1e9, 4)) == (25.9151, 4.1713)


@cache
def checked() -> list[dict[str, Any]]:
    result = attune("published", "--check", "--json")
    assert result.exit_code == 0
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_check_has_every_row_beside_ours() -> None:
    assert [item["row"] for item in checked()] == [row.to_json() for row in published()]
    for item in checked():
        for name in ("params_m", "gmacs"):
            compared = item[name]
            if item["params"] is not None and item["row"][name] is not None:
                assert compared["printed"] == item["row"][name]
                assert (compared["verdict"] == "exact") == (compared["ours"] == compared["printed"])
                assert bool(compared["reason"]) == (compared["verdict"] == "deviates")
            else:
                assert compared is None


def test_check_as_text_gives_the_reasons() -> None:
    result = attune("published", "--check")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    exact = next(line for line in lines if line.startswith("ResNet50") and "CBAM" in line)
    assert exact.split()[-5:] == ["28.09", "28.09", "3.864", "3.864", "exact"]
    assert any("44.95" in line and "44.86" in line and "deviates" in line for line in lines)
    assert any(line.startswith("(1) ") for line in lines)
    assert lines[-1].endswith("117 rows.")


def test_without_check_nothing_is_counted() -> None:
    result = attune("published", "--json")
    assert json.loads(result.stdout) == [row.to_json() for row in published()]
