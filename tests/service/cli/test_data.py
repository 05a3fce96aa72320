"""attune data: what an operator sees of the data sets on a disk, and what a service offers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from db import catalog
from db.engine import make_engine, writing
from service.cli.main import app
from tests.service.cli.conftest import Shell
from tests.workers.datasets.conftest import write_cifar, write_images
from workers.datasets.cifar_files import CIFAR10


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ATTUNE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ATTUNE_DATA_WORKERS", "2")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def attune(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["data", *arguments], env={"COLUMNS": "200"})


def told(*arguments: str, code: int = 0) -> Any:
    result = attune(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_list_says_what_is_there_and_what_the_others_need(data: Path) -> None:
    write_images(data / "pets", {"cat": 30, "dog": 30}, size=(8, 8))
    write_images(data / "lonely", {"cat": 3})
    (data / "not a name").mkdir()
    found = {one["name"]: one for one in told("list")}
    assert found["pets"]["status"] == "ready"
    assert found["pets"]["where"] == str(data / "pets")
    assert found["pets"]["bytes"] == sum(path.stat().st_size for path in (data / "pets").rglob("*.png"))
    assert found["digits"]["where"] is None
    assert found["cifar10"]["status"] == found["imagenet"]["status"] == "missing"
    assert "data_batch_3" in found["cifar10"]["reason"]
    assert found["lonely"]["status"] == "broken"
    assert "at least 2" in found["lonely"]["reason"]
    assert found["'not a name'"]["status"] == "broken"
    text = attune("list").stdout
    for word in ("pets", found["pets"]["entry"]["fingerprint"][:12], str(data / "pets"), "cifar-10-python.tar.gz"):
        assert word in text.replace("\n", "")


def test_check_reads_every_file(data: Path) -> None:
    write_images(data / "pets" / "train", {"cat": 60, "dog": 4}, size=(8, 8))
    write_images(data / "pets" / "test", {"cat": 2, "dog": 2}, size=(8, 8), seed=50_000)
    good = told("check", "pets")
    assert good["problems"] == []
    assert {one["name"]: one["test"] for one in good["classes"]} == {"cat": 2, "dog": 2}
    assert sum(one["train"] + one["validation"] for one in good["classes"]) == 64
    assert any("uneven" in warning for warning in good["warnings"])
    (data / "pets" / "train" / "cat" / "0003.png").write_bytes(b"broken")
    (data / "pets" / "train" / "cat" / "notes.txt").write_text("x")
    (data / "pets" / "test" / "cat" / "copy.png").write_bytes((data / "pets/train/cat/0004.png").read_bytes())
    bad = told("check", "pets", code=1)
    assert bad["count_unreadable"] == 1
    assert bad["unreadable"][0]["file"] == "train/cat/0003.png"
    assert bad["ignored"] == ["train/cat/notes.txt"]
    assert any("more than one of the split folders" in warning for warning in bad["warnings"])
    result = attune("check", "pets")
    assert result.exit_code == 1
    for word in ("train/cat/0003.png", "notes.txt", "skip_corrupt"):
        assert word in result.stdout


def test_check_notices_content_that_changed_without_a_trace(data: Path) -> None:
    """A disk that loses bits changes no time. Stood in for by a memory of hashes that says otherwise."""
    write_images(data / "pets", {"cat": 30, "dog": 30}, size=(8, 8))
    time.sleep(2.1)  # hashes of files that have just changed are not remembered
    told("check", "pets")
    (stored,) = (data.parent / "home" / "cache" / "hashes").iterdir()
    with np.load(stored) as kept:
        arrays = dict(kept)
    arrays["digests"][5] ^= 1
    np.savez(stored, **arrays)
    problems = told("check", "pets", code=1)["problems"]
    assert len(problems) == 1
    assert "another content" in problems[0]


def test_check_of_cifar_says_that_these_are_not_the_published_files(data: Path) -> None:
    write_cifar(data, CIFAR10, per_file=40)
    report = told("check", "cifar10")
    assert report["found"]["entry"]["classes"] == 10
    assert any("test_batch is not the published file" in warning for warning in report["warnings"])
    assert any("200 training and 40 test images" in warning for warning in report["warnings"])
    (data / CIFAR10.folder / "data_batch_2").unlink()
    assert "lacks data_batch_2" in told("check", "cifar10", code=1)["problems"][0]


def test_add_registers_a_folder_once_it_can_be_used(data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write_images(elsewhere / "flowers", {"rose": 30, "tulip": 30}, size=(8, 8))
    assert told("add", "flowers", str(elsewhere / "flowers"))["found"]["registered"]
    assert "flowers" in {one["name"] for one in told("list") if one["status"] == "ready"}
    told("add", "flowers", str(elsewhere / "flowers"))  # again: nothing changes
    write_images(elsewhere / "others", {"rose": 30, "tulip": 30}, size=(8, 8))
    refused = attune("add", "flowers", str(elsewhere / "others"))
    assert refused.exit_code == 2
    assert "--replace" in refused.stderr
    assert told("add", "flowers", str(elsewhere / "others"), "--replace")["found"]["where"] == str(elsewhere / "others")
    write_cifar(elsewhere, CIFAR10)
    assert told("add", "cifar10", str(elsewhere))["found"]["where"] == str(elsewhere / CIFAR10.folder)


@pytest.mark.parametrize(
    ("name", "folder", "why"),
    [
        ("../up", "good", "cannot be a data set's name"),
        ("a b", "good", "cannot be a data set's name"),
        ("-rf", "good", "cannot be a data set's name"),
        ("digits", "good", "choose another name"),
        ("cifar-10-batches-py", "good", "cifar10"),
        ("cifar10", "good", "lacks data_batch_1"),
        ("imagenet", "good", "1,000 are expected"),
        ("fine", "nowhere", "no folder"),
        ("fine", "good/a/0000.png", "no folder"),
        ("fine", "empty", "0 class folders"),
        ("taken", "good", "is a folder in"),
    ],
)
def test_add_refuses_what_cannot_be_used_and_registers_nothing(
    data: Path, tmp_path: Path, name: str, folder: str, why: str
) -> None:
    write_images(tmp_path / "good", {"a": 30, "b": 30}, size=(8, 8))
    write_images(data / "taken", {"a": 30, "b": 30}, size=(8, 8))
    (tmp_path / "empty").mkdir()
    result = attune("add", "--", name, str(tmp_path / folder))
    assert result.exit_code == 2, result.output
    assert why in result.stderr
    assert not (data / "attune-data.json").exists()


def test_a_broken_file_of_registrations_is_told_and_hides_nothing_else(data: Path) -> None:
    write_images(data / "pets", {"cat": 30, "dog": 30}, size=(8, 8))
    (data / "attune-data.json").write_text('{"version": 1, "folders": ["a"]}')
    found = {one["name"]: one for one in told("list")}
    assert "cannot be read" in found["attune-data.json"]["reason"]
    assert found["digits"]["status"] == "ready"
    assert attune("add", "more", str(data / "pets")).exit_code == 2


def test_published_ones_are_those_of_the_service(shell: Shell) -> None:
    assert [item["name"] for item in shell.json("data", "published")] == ["cluttered-digits"]


def test_what_workers_cannot_use_is_listed_and_a_request_for_it_is_told_why(shell: Shell, tmp_path: Path) -> None:
    engine = make_engine(shell.rows.url)
    reason = "CIFAR-10 is not there: expected in /data: cifar-10-batches-py/"
    missing = {"name": "cifar10", "title": "CIFAR-10", "reason": reason}
    with writing(engine) as session:
        catalog.publish_node(session, "n", {"id": "n", "unavailable_datasets": [missing, {"name": "of tomorrow"}]})
    engine.dispose()
    assert reason in shell("data", "published").stdout.replace("\n", "")
    request = tmp_path / "request.yaml"
    request.write_text("name: t\ndataset: {name: cifar10}\n")
    refused = shell("submit", str(request))
    assert refused.exit_code == 2
    assert reason in refused.stderr.replace("\n", "")
    assert "cluttered-digits" in refused.stderr
