"""cost and db upgrade: without a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli.main import app


def attune(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


def cost(*arguments: str) -> dict[str, int]:
    result = attune("cost", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, int] = json.loads(result.stdout)
    return found


SMALL = ("resnet8", "--width", "16", "--image", "3x32x32", "--classes", "10")


def test_resnet50_has_torchvisions_parameters() -> None:
    assert cost("resnet50")["params"] == 25_557_032


def test_se_adds_two_matrices_with_biases_per_block() -> None:
    added = cost(*SMALL, "--module", "se", "--reduction", "4")["params"] - cost(*SMALL)["params"]
    assert added == sum(2 * c * (c // 4) + c // 4 + c for c in (16, 32, 64)) or added == sum(
        2 * c * (c // 4) for c in (16, 32, 64)
    )


def test_stages_and_pattern_choose_where() -> None:
    base, every = cost(*SMALL), cost(*SMALL, "--module", "se", "--reduction", "4")
    parts = [
        cost(*SMALL, "--module", "se", "--reduction", "4", "--stages", str(s), "--pattern", "1") for s in (1, 2, 3)
    ]
    assert sum(part["params"] - base["params"] for part in parts) == every["params"] - base["params"]


def test_an_option_goes_to_the_module_that_has_it() -> None:
    both = (*SMALL, "--module", "se", "--module", "cbam", "--reduction", "4")
    small, large = (cost(*both, "--option", option) for option in ("kernel=3", "cbam.kernel=7"))
    assert large["params"] - small["params"] == 3 * 2 * (49 - 9)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("resnet51",), ["Did you mean", "resnet50"]),
        (("resnet8", "--module", "sex"), ["Did you mean 'se'"]),
        (("resnet8", "--module", "se", "--position", "nowhere"), ["residual", "stage_end"]),
        (("resnet8", "--module", "se", "--stages", "4", "--image", "3x32x32"), ["no stage 4", "1, 2, 3"]),
        (("resnet8", "--module", "se", "--option", "kernel=3"), ["kernel", "reduction"]),
        (("resnet8", "--module", "se", "--option", "kernel"), ["key=value"]),
        (
            ("resnet8", "--module", "se", "--reduction", "64", "--width", "16", "--image", "3x32x32"),
            ["over the 16 channels"],
        ),
        (("resnet8", "--module", "cbam", "--option", "kernel=4"), ["odd"]),
        (("resnet8", "--image", "32x32"), ["3x224x224"]),
        (("resnet8", "--image", "3x0x32"), ["3x224x224"]),
        (("resnet8", "--image", "3x²x32"), ["3x224x224"]),
        (("resnet8", "--image", "3x999999x32"), ["3x224x224"]),
        (("resnet8", "--classes", "99999999999999999999"), ["1000000"]),
        (("resnet8", "--width", "8.5"), ["whole number"]),
        (("resnet50", "--widen", "0"), ["Must be over 0"]),
        (("resnet50", "--stem", "cifra"), ["imagenet, cifar"]),
        (("resnet18", "--stride-in-1x1"), ["stride_in_1x1", "stem, width, widen"]),
        (("resnet8", "--module", "se", "--stages", "1,1"), ["different numbers"]),
        (("resnet8", "--module", "se", "--pattern", "2"), ["Blocks [2] do not fit", "every"]),
        (("resnet8", "--module", "eca", "--reduction", "4"), ["no module here", "kernel"]),
        (("torchvision:resnet5", "--module", "se"), ["has no network 'resnet5'", "torchvision:resnet50"]),
        (("resnet8", "--backbone-option", "depth=3"), ["width"]),
    ],
)
def test_errors_name_what_is_valid(arguments: tuple[str, ...], told: list[Any]) -> None:
    result = attune("cost", *arguments)
    assert result.exit_code == 2
    for part in told:
        assert part.lower() in " ".join(result.stderr.replace("│", " ").split()).lower()


def test_what_many_blocks_have_wrong_is_told_once_a_stage() -> None:
    result = attune("cost", "resnet50", "--module", "bam", "--position", "conv")
    assert result.exit_code == 2
    assert result.stderr.count("cannot go to position") == 4  # stages, not blocks
    assert result.stderr.count("•") == 4


def test_memory_that_modules_keep() -> None:
    """SE in the one block of stage 3 keeps the branch (64 × 8 × 8) and its gates, in float32; twice the area, about
    twice the bytes."""
    se = ("--module", "se", "--reduction", "4", "--stages", "3", "--memory")
    small = cost(*SMALL, *se)["activation_bytes"]
    assert 64 * 8 * 8 * 4 < small < 1.1 * 64 * 8 * 8 * 4
    large = cost("resnet8", "--width", "16", "--image", "3x32x64", "--classes", "10", *se)["activation_bytes"]
    assert large - small == 64 * 8 * 8 * 4
    assert "activation_bytes" not in cost(*SMALL)
    assert cost(*SMALL, "--memory")["activation_bytes"] == 0


def test_mobilenets_width_is_a_factor() -> None:
    """Howard 2017, table 6: 0.5 MobileNet-224 has 149 million multiply-adds and 1.3 million parameters."""
    found = cost("mobilenet_v1", "--width", "0.5")
    assert (round(found["macs"] / 1e6), round(found["params"] / 1e6, 1)) == (149, 1.3)


def test_wide_resnets_widening_is_a_whole_number() -> None:
    """Zagoruyko 2016, table 5: WRN-28-10 has 36.5 million parameters."""
    found = cost("wide_resnet28_10", "--widen", "10", "--image", "3x32x32", "--classes", "10")
    assert round(found["params"] / 1e6, 1) == 36.5


def test_the_cifar_stem_keeps_small_images_large() -> None:
    """ResNet-18 for CIFAR: 11.17 M parameters and 0.56 G multiply-adds (kuangliu/pytorch-cifar)."""
    found = cost("resnet18", "--stem", "cifar", "--image", "3x32x32", "--classes", "10")
    assert (found["params"], round(found["macs"] / 1e9, 2)) == (11_173_962, 0.56)


def test_the_table_has_the_strip_and_exact_numbers() -> None:
    result = attune("cost", *SMALL, "--module", "cbam", "--reduction", "8", "--stages", "3")
    assert "stage 3: CBAM in its block, r = 8" in result.stdout
    assert f"{cost(*SMALL, '--module', 'cbam', '--reduction', '8', '--stages', '3')['macs']:,}" in result.stdout


def test_db_upgrade_makes_the_database(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["db", "upgrade", "--json"], env={"ATTUNE_HOME": str(tmp_path)})
    assert result.exit_code == 0
    assert (tmp_path / "attune.db").stat().st_size > 0


def test_db_upgrade_without_a_database_is_exit_code_3() -> None:
    url = "postgresql://someone:canary@127.0.0.1:1/nothing"
    result = CliRunner().invoke(app, ["db", "upgrade"], env={"ATTUNE_DATABASE_URL": url})
    assert result.exit_code == 3
    assert "ATTUNE_DATABASE_URL" in result.stderr
    assert "canary" not in result.output + result.stderr
