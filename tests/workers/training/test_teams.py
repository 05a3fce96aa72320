"""Two processes that train one network over gloo, against one process that trains it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.workers.datasets.conftest import write_images
from tests.workers.training.conftest import MakeRequest
from workers.datasets.loading import entry
from workers.training.classification import ClassificationSession
from workers.training.request import TrialRequest
from workers.training.teams import Team

ROOT = Path(__file__).parents[3]
CBAM = {"backbone": {"name": "resnet8", "width": 4}, "placements": {"2.1.residual": [{"kind": "cbam", "reduction": 4}]}}
UNEVEN = {"batch_size": 63, "class_weights": "balanced", "augment": "shift", "shift_pixels": 1, "ema": 0.9, "lr": 0.01}


class Member(subprocess.Popen[str]):
    """A process of a team; what it has printed, line by line, once it has ended."""

    def __init__(self, request: TrialRequest, rank: int, size: int, port: int, *more: str, **variables: str) -> None:
        command = [sys.executable, "-m", "tests.workers.training.team_member", json.dumps(request.to_json())]
        super().__init__(
            [*command, str(rank), str(size), str(port), *more], cwd=ROOT, env=os.environ | variables,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def lines(self) -> list[dict[str, Any]]:
        said, errors = self.communicate(timeout=200)
        assert self.returncode == 0, errors[-3000:]
        return [json.loads(line) for line in said.splitlines()]


def train(request: TrialRequest, size: int = 2, *more: str) -> list[list[dict[str, Any]]]:
    """What each member says."""
    with Member(request, 0, size, 0, "2", *more) as first:
        assert first.stdout is not None
        port = first.stdout.readline()
        assert port, first.communicate()[1]
        others = [Member(request, rank, size, int(port), "2", *more) for rank in range(1, size)]
        found = [member.lines() for member in (first, *others)]
        for member in others:
            member.__exit__(None, None, None)
    return found


def same(ours: Mapping[str, float], theirs: Mapping[str, float], *names: str, rel: float = 5e-4) -> None:
    """Within rounding, by which a few images of a hundred may be guessed otherwise."""
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], rel=rel, abs=0.01 if "top" in name else 0), name


@pytest.mark.parametrize("recipe", [{"lr": 0.01}, UNEVEN])
def test_two_processes_train_as_one(make_request: MakeRequest, recipe: dict[str, Any]) -> None:
    """With batch norms, whose statistics are those of the whole batch; with shares that differ in size."""
    request = make_request(recipe=recipe, architecture=CBAM, evaluate_test=True, latency=True)
    alone = ClassificationSession(request)
    expected = [asdict(alone.run_epoch()) for _ in range(2)]
    first, second = train(request)
    for member in (first, second):
        for ours, theirs in zip(member[: len(expected)], expected, strict=True):
            same(ours, theirs, "train_loss", "val_loss", "top1", "top5", "lr")
        same(member[2], asdict(alone.evaluate_test()), "test_loss", "test_top1")
    assert first[3] == second[3]  # the members' weights, bit by bit
    assert first[3].keys() == alone.weights().keys()
    assert first[4].keys() == alone.latency().keys()


def test_a_team_goes_on_from_a_checkpoint(make_request: MakeRequest, tmp_path: Path) -> None:
    request, file = make_request(recipe=UNEVEN), tmp_path / "state.pt"
    through, _ = train(request, 2, str(file))
    again, other = train(request, 2, str(file))
    assert len(again) == len(other) == len(through) - 1
    same(again[0], through[1], "train_loss", "val_loss", "top1", rel=1e-9)
    assert again[-1] == pytest.approx(through[-1])
    alone = ClassificationSession(request)  # and one process can go on from what a team has left
    alone.load(torch.load(file))
    same(asdict(alone.run_epoch()), through[1], "train_loss", "val_loss", "top1")


@pytest.mark.parametrize("dying", [0, 1])
def test_who_is_left_fails_at_once_when_a_member_dies(make_request: MakeRequest, dying: int) -> None:
    request = make_request()
    variables = [{"DIE": "1"} if rank == dying else {} for rank in (0, 1)]
    with Member(request, 0, 2, 0, "2", **variables[0]) as first:
        assert first.stdout is not None
        with Member(request, 1, 2, int(first.stdout.readline()), "2", **variables[1]) as second:
            members = (first, second)
            assert members[dying].wait(timeout=120) == 9
            _, errors = members[1 - dying].communicate(timeout=60)
            assert members[1 - dying].returncode == 1
            assert "Connection" in errors


def test_a_team_trains_on_images_in_files_as_one_process_does(
    make_request: MakeRequest, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares of uneven batches, of images that are decoded while training."""
    for name, count, seed in (("train", 60, 0), ("val", 20, 40_000), ("test", 20, 80_000)):
        write_images(data / "photos" / name, {"a": count // 3, "b": 2 * count // 3}, size=(24, 20), seed=seed)
    options = {"image_size": 16}
    request = make_request(
        dataset="photos", dataset_options=options, task=entry("photos").resolve(options).task, fingerprint="",
        recipe={"batch_size": 15, "lr": 0.01, "class_weights": "balanced", "augment": "crop_flip"},
    )  # fmt: skip
    monkeypatch.setenv("ATTUNE_DATA_MEMORY", "1000")
    alone = ClassificationSession(request)
    expected = [asdict(alone.run_epoch()) for _ in range(2)]
    alone.close()
    first, second = train(request)
    for member in (first, second):
        for ours, theirs in zip(member[: len(expected)], expected, strict=True):
            same(ours, theirs, "train_loss", "val_loss", "top1")


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_shares_make_up_the_batch(count: int, size: int) -> None:
    shares = [range(count)[Team(rank, size).share(count)] for rank in range(size)]
    assert [image for share in shares for image in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_wrapped() -> None:
    network = nn.Linear(2, 2)
    assert Team().together(network) is network
