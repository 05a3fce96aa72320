"""Initial weights by name: what the operator's folder holds, what workers publish, what a request may choose."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from search.errors import SpecError
from search.plan import make_plan
from search.spec import SearchSpec
from search.weights import Weights, choose, find_file, fingerprint, fingerprints, published, registered, weights_folder
from tests.search.conftest import Entries

A, B = "a" * 64, "b" * 64
SUFFIXES = ("safetensors", "pth", "pt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three weights, a note, and a file outside."""
    inside = tmp_path / "weights"
    inside.mkdir()
    for path in (inside / "a.safetensors", inside / "b.pth", inside / "c.pt", tmp_path / "outside.pth"):
        path.write_bytes(path.name.encode())
    (inside / "notes.txt").write_text("not weights")
    (inside / "folder.pt").mkdir()
    return inside


def test_files_are_found_by_name_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_WEIGHTS", str(folder))
    assert registered(weights_folder()) == {
        name: folder / f"{name}.{s}" for name, s in zip("abc", SUFFIXES, strict=True)
    }
    assert find_file("b", weights_folder()).read_bytes() == b"b.pth"
    for name in ("../outside", str(folder.parent / "outside"), "notes", "folder", "a.safetensors", "", "."):
        with pytest.raises(SpecError, match=r"Valid choices: a, b, c\.") as caught:
            find_file(name, weights_folder())
        assert caught.value.problems[0].field == "init.weights"


def test_without_a_folder_the_error_says_what_the_operator_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTUNE_WEIGHTS", raising=False)
    with pytest.raises(SpecError, match="ATTUNE_WEIGHTS"):
        find_file("resnet50", weights_folder())
    assert fingerprints(weights_folder()) == {}


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    (folder / "a.pt").touch()
    with pytest.raises(SpecError, match="have one name"):
        fingerprints(folder)


def test_fingerprints_are_of_the_content_as_it_is_now(folder: Path) -> None:
    assert fingerprints(folder)["c"] == hashlib.sha256(b"c.pt").hexdigest()
    (folder / "a.safetensors").write_bytes(b"c.pt")
    assert fingerprint(folder / "a.safetensors") == fingerprint(folder / "c.pt")


def test_a_name_that_differs_between_machines_is_not_offered() -> None:
    one, two = {"weights": {"x": A, "y": A}}, {"weights": {"x": A, "y": B, "z": B}}
    assert published([one, two, {"cpus": 4}, {"weights": None}]) == {"x": A, "z": B}


def test_a_request_chooses_by_name() -> None:
    assert choose("x", {"x": A}) == choose("x", {"x": A}, A) == Weights("x", A)
    with pytest.raises(SpecError, match=r"Unknown weights 'resnet50'\. Valid choices: x, y\."):
        choose("resnet50", {"x": A, "y": B})
    with pytest.raises(SpecError, match="the operator sets ATTUNE_WEIGHTS"):
        choose("x", {})
    with pytest.raises(SpecError, match="another file now") as caught:
        choose("x", {"x": A}, B)
    assert caught.value.problems[0].field == "init.fingerprint"


def test_a_plan_holds_the_file_that_it_was_made_for(datasets: Entries) -> None:
    request = {"name": "x", "dataset": {"name": "dots"}, "init": {"weights": "mine"}}
    plan = make_plan(SearchSpec.parse(request), datasets, {"mine": A})
    assert plan.weights == Weights("mine", A)
    stored = plan.resolved()
    assert stored["init"] == {"weights": "mine", "fingerprint": A}
    again = make_plan(SearchSpec.parse_stored(stored), datasets, {"mine": A})
    assert (again.weights, again.resolved()) == (plan.weights, stored)
    with pytest.raises(SpecError, match="another file now"):
        make_plan(SearchSpec.parse_stored(stored), datasets, {"mine": B})
    with pytest.raises(SpecError, match="Unknown weights 'mine'"):
        make_plan(SearchSpec.parse_stored(stored), datasets, {})


def test_without_weights_nothing_is_loaded(datasets: Entries) -> None:
    plan = make_plan(SearchSpec.parse({"name": "x", "dataset": {"name": "dots"}}), datasets, {"mine": A})
    assert plan.weights is None
    assert plan.resolved()["init"] == {"weights": None, "fingerprint": None}


@pytest.mark.parametrize(
    ("init", "field"),
    [
        ({"weights": ""}, "init.weights"),
        ({"weights": 5}, "init.weights"),
        ({"weight": "mine"}, "init.weight"),
        ({"weights": "mine", "fingerprint": "abc"}, "init.fingerprint"),
        ({"fingerprint": A}, "init"),
        ("mine", "init"),
    ],
)
def test_what_is_written_wrongly_is_told(init: object, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        SearchSpec.parse({"name": "x", "dataset": {"name": "dots"}, "init": init})
    assert caught.value.problems[0].field == field


def test_names_and_fingerprints_need_no_torch() -> None:
    code = "import sys, search.weights, search.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
