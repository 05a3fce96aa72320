"""What is published, and when reading a new data set may take too long for a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.datasets.conftest import write_images
from workers.datasets import DATASETS
from workers.datasets.checking import published
from workers.datasets.folders import ImageFolder
from workers.datasets.scanning import Listing


def test_what_can_be_used_is_published_and_why_the_rest_cannot(data: Path) -> None:
    before = set(DATASETS.names())  # other tests have loaded plug-ins
    assert {"digits", "cluttered-digits"} <= before
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    write_images(data / "lonely", {"a": 30}, size=(8, 8))
    ready, rest = published()
    assert {entry.name for entry in ready} == before | {"pets"}
    assert {one.name for one in rest} == {"cifar10", "cifar100", "imagenet", "lonely"}
    assert all(one.reason for one in rest)
    assert set(DATASETS.names()) == before | {"pets", "lonely"}


def test_a_large_new_data_set_is_not_waited_for(data: Path) -> None:
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    ready, rest = published(most=100)
    assert "pets" not in {entry.name for entry in ready}
    assert "60 files" in {one.name: one.reason for one in rest}["pets"]
    assert "pets" in {entry.name for entry in published()[0]}
    assert "pets" in {entry.name for entry in published(most=100)[0]}


def test_an_unchanged_folder_is_only_glanced_at(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where listing takes long: folders are looked at each time, files now and then."""
    from workers.datasets import files, folders

    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    listings: list[Listing] = []
    scan = folders.scan
    monkeypatch.setattr(folders, "scan", lambda *arguments: listings.append(scan(*arguments)) or listings[-1])
    monkeypatch.setattr(files, "ALWAYS_LOOKED_AT", 0.0)
    monkeypatch.setattr(files, "LOOKED_AT", 1e9)
    dataset = ImageFolder("pets")
    first = dataset.entry()
    for _ in range(5):
        assert dataset.entry() is first
    assert len(listings) == 1
    path = data / "pets" / "a" / "new.png"
    path.write_bytes((data / "pets" / "b" / "0000.png").read_bytes())
    grown = dataset.entry().fingerprint
    assert grown != first.fingerprint
    path.write_bytes((data / "pets" / "b" / "0001.png").read_bytes())  # no folder has changed
    assert dataset.entry().fingerprint == grown
    assert dataset.view(fresh=True).entry().fingerprint != grown
