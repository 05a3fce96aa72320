"""Folders of images against torchvision's ImageFolder, and folders that cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as Theirs
from torchvision.transforms.functional import pil_to_tensor

from search.datasets import DatasetEntry
from search.errors import SpecError
from tests.workers.datasets.conftest import photo, write_images
from workers.datasets import DATASETS, ArraySplits, DatasetError, FileSplits, places
from workers.datasets.errors import UnreadableImageError
from workers.datasets.folders import ImageFolder, ImageNet

PETS = {"cat": 30, "dog": 24, "käse 猫": 12}


def made(name: str, **options: Any) -> tuple[DatasetEntry, ArraySplits]:
    dataset = DATASETS.get(name)
    entry = dataset.entry()
    splits = dataset.splits(entry.resolve(options).options)
    assert isinstance(splits, ArraySplits)
    return entry, splits


def identities(splits: ArraySplits) -> dict[str, str]:
    """The split of each image."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {identity: name for name, split in parts.items() for identity in split.identities}


def test_images_and_labels_are_those_of_image_folder(data: Path) -> None:
    write_images(data / "pets" / "train", PETS, size=(32, 32))
    write_images(data / "pets" / "val", PETS, seed=500, size=(32, 32))
    write_images(data / "pets" / "test", PETS, seed=900, size=(32, 32), suffix=".webp")
    entry, splits = made("pets")
    assert entry.class_names == ("cat", "dog", "käse 猫")
    assert entry.input_shape == (3, 32, 32)
    for folder, split in (("train", splits.train), ("val", splits.validation), ("test", splits.test)):
        reader = Theirs(data / "pets" / folder)
        expected = sorted((pil_to_tensor(image).numpy().tobytes(), label) for image, label in reader)
        assert sorted(zip([i.tobytes() for i in split.images], split.labels.tolist(), strict=True)) == expected
        assert tuple(reader.classes) == entry.class_names


def test_one_folder_of_classes_is_split_by_content(data: Path) -> None:
    write_images(data / "pets", {"a": 150, "b": 150}, size=(8, 8))
    entry, splits = made("pets")
    sizes = [len(split.labels) for split in (splits.train, splits.validation, splits.test)]
    assert sizes == [entry.train_size, entry.validation_size, entry.test_size]
    assert sum(sizes) == 300
    # six standard deviations of a binomial with n = 300 and p = 0.15
    assert all(abs(size - 45) < 6 * (300 * 0.15 * 0.85) ** 0.5 for size in sizes[1:])
    assert entry.class_counts == tuple(np.bincount(splits.train.labels))
    _, other = made("pets", split_seed=5)
    assert identities(other) != identities(splits)


def test_growth_renaming_and_new_classes_move_no_image(data: Path) -> None:
    write_images(data / "pets", {"cat": 60, "dog": 60}, size=(8, 8))
    before = identities(made("pets")[1])
    write_images(data / "pets", {"ant": 40}, size=(8, 8), seed=50_000)
    write_images(data / "pets" / "cat", {"more": 40}, size=(8, 8), seed=70_000)
    (data / "pets" / "dog" / "0003.png").rename(data / "pets" / "dog" / "renamed.png")
    after = identities(made("pets")[1])
    assert len(after) == 200
    assert {identity: after[identity] for identity in before} == before


def test_copies_of_an_image_stay_in_one_split(data: Path) -> None:
    write_images(data / "pets", {"cat": 60, "dog": 60}, size=(8, 8))
    for path in sorted((data / "pets" / "dog").iterdir()):
        shutil.copy(path, data / "pets" / "dog" / f"copy of {path.name}")
    _, splits = made("pets")
    assert not set(splits.train.identities) & set(splits.validation.identities)
    assert not set(splits.train.identities) & set(splits.test.identities)
    assert sum(len(split.labels) for split in (splits.train, splits.validation, splits.test)) == 180


@pytest.mark.parametrize(
    ("folders", "options"),
    [
        (("train", "val", "test"), set()),
        (("train", "valid", "test"), set()),
        (("train", "test"), {"validation_share", "split_seed"}),
        (("train", "validation"), {"test_share", "split_seed"}),
        (("train",), {"validation_share", "test_share", "split_seed"}),
        (("",), {"validation_share", "test_share", "split_seed"}),
    ],
)
def test_what_has_no_folder_is_drawn_from_the_training_images(
    data: Path, folders: tuple[str, ...], options: set[str]
) -> None:
    for number, folder in enumerate(folders):
        write_images(data / "pets" / folder, {"a": 30, "b": 30}, size=(8, 8), seed=10_000 * number)
    entry, splits = made("pets")
    assert {option.name for option in entry.options} == options | {
        "image_size", "colour", "crop", "normalisation", "skip_corrupt",
    }  # fmt: skip
    assert len(identities(splits)) == 60 * len(folders)
    for number, folder in enumerate(folders[1:], 1):
        theirs = {path.read_bytes() for path in (data / "pets" / folder).rglob("*.png")}
        split = splits.test if folder == "test" else splits.validation
        assert len(split.labels) == len(theirs) == 60, number


def test_grey_images_are_one_channel_and_small_ones_keep_their_size(data: Path) -> None:
    write_images(data / "letters", {"a": 20, "b": 20}, size=(20, 28), grey=True)
    entry, splits = made("letters")
    assert entry.input_shape == (1, 20, 20)
    assert splits.train.images.shape[1:] == (1, 20, 20)
    resolved = entry.resolve({"colour": "rgb", "image_size": 12})
    assert resolved.input_shape == (3, 12, 12)
    assert made("letters", colour="rgb", image_size=12)[1].test.images.shape[1:] == (3, 12, 12)


def test_large_images_are_224_unless_asked_otherwise(data: Path) -> None:
    write_images(data / "photos", {"a": 20, "b": 20}, size=(400, 301), suffix=".jpg")
    assert DATASETS.get("photos").entry().input_shape == (3, 224, 224)


def test_a_corrupt_image_refuses_the_data_set_with_its_name(data: Path) -> None:
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    (data / "pets" / "b" / "0004.png").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"b/0004\.png"):
        made("pets")


@pytest.mark.parametrize("in_memory", [True, False])
def test_corrupt_images_are_skipped_when_asked_for_and_counted(
    data: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setenv("ATTUNE_DATA_MEMORY", "0")
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    for name in ("a/0001.png", "b/0004.png", "b/0007.png"):
        (data / "pets" / name).write_bytes(b"broken " + name.encode())
    dataset = DATASETS.get("pets")
    splits = dataset.splits(dataset.entry().resolve({"skip_corrupt": True}).options)
    again = dataset.splits(dataset.entry().resolve({"skip_corrupt": True}).options)
    for one in (splits, again):
        assert isinstance(one, ArraySplits) == in_memory
        assert one.skipped == 3
        assert "3 images" in one.notes[0]
        assert "a/0001.png" in one.notes[0]
        assert sum(len(part.labels) for part in (one.train, one.validation, one.test)) == 57
    if isinstance(splits, ArraySplits):
        shown = {image.tobytes() for part in (splits.train, splits.validation, splits.test) for image in part.images}
        files = {path for path in (data / "pets").rglob("*.png") if not path.read_bytes().startswith(b"broken")}
        assert shown == {pil_to_tensor(Image.open(path)).numpy().tobytes() for path in files}


def test_what_is_no_image_is_left_aside(data: Path) -> None:
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    (data / "pets" / "a" / "notes.txt").write_text("x")
    (data / "pets" / "a" / "._0001.png").write_text("macOS's")
    (data / "pets" / "readme.md").write_text("x")
    (data / "pets" / ".hidden").mkdir()
    (data / "pets" / "__MACOSX").mkdir()
    os.mkfifo(data / "pets" / "b" / "pipe.png")
    entry, splits = made("pets")
    assert entry.classes == 2
    assert len(identities(splits)) == 60


def broken_folders(data: Path) -> dict[str, str]:
    """By name, what the error must tell."""
    write_images(data / "empty-class", {"a": 9, "b": 9})
    (data / "empty-class" / "c").mkdir()
    write_images(data / "one-class", {"a": 9})
    (data / "nothing").mkdir()
    write_images(data / "stranger" / "train", {"a": 9, "b": 9})
    write_images(data / "stranger" / "val", {"a": 9, "c": 9})
    write_images(data / "few", {"a": 1, "b": 1})
    write_images(data / "two-vals" / "train", {"a": 9, "b": 9})
    write_images(data / "two-vals" / "val", {"a": 9, "b": 9})
    write_images(data / "two-vals" / "valid", {"a": 9, "b": 9})
    write_images(data / "odd", {"a": 9, "b\n": 9})
    return {
        "empty-class": r"c' has no image", "one-class": "1 class folder", "nothing": "0 class folders",
        "stranger": "class 'c'", "few": "split", "two-vals": "two folders", "odd": "printable",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["empty-class", "one-class", "nothing", "stranger", "few", "two-vals", "odd"])
def test_a_folder_that_cannot_be_used_says_why(data: Path, name: str) -> None:
    told = broken_folders(data)[name]
    with pytest.raises(DatasetError, match=told):
        DATASETS.get(name).entry()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..", ".", "/etc", "a/b", "", "x" * 65, "file:///etc", "a\0b", "~", "pets\n"]
)
def test_a_name_is_never_a_path(data: Path, name: str) -> None:
    write_images(data / "pets", {"a": 9, "b": 9})
    assert places.find(data, name) is None
    with pytest.raises(SpecError) as caught:
        DATASETS.get(name, "dataset.name")
    assert "pets" in caught.value.problems[0].choices
    assert "digits" in caught.value.problems[0].choices


def test_links_out_of_the_root_are_refused_and_those_inside_are_followed(data: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", {"a": 20, "b": 20}, size=(8, 8))
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="attune data add linked"):
        DATASETS.get("linked").entry()
    write_images(data / "pets", {"a": 20, "b": 20}, size=(8, 8))
    (data / "again").symlink_to(data / "pets")
    assert DATASETS.get("again").entry().class_counts == DATASETS.get("pets").entry().class_counts
    (data / "pets" / "c").symlink_to(data / "pets" / "a")
    assert DATASETS.get("pets").entry().classes == 3
    (data / "pets" / "c").unlink()
    (data / "pets" / "c").symlink_to(tmp_path / "elsewhere" / "a")
    with pytest.raises(DatasetError, match="symbolic link out of"):
        DATASETS.get("pets").entry()
    (data / "pets" / "c").unlink()
    (data / "pets" / "a" / "x.png").symlink_to(tmp_path / "elsewhere" / "a" / "0000.png")
    with pytest.raises(DatasetError, match="symbolic link out of"):
        DATASETS.get("pets").entry()
    (data / "pets" / "a" / "x.png").unlink()
    (data / "pets" / "a" / "loop").symlink_to(data / "pets" / "a")
    with pytest.raises(DatasetError, match="leads back"):
        DATASETS.get("pets").entry()


def test_a_registered_folder_is_found_by_its_name(data: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", {"a": 20, "b": 20}, size=(8, 8))
    places.register(data, "flowers", tmp_path / "elsewhere")
    assert DATASETS.get("flowers").entry().classes == 2
    assert "flowers" in DATASETS.names()
    with pytest.raises(DatasetError, match="is registered as"):
        places.register(data, "flowers", tmp_path)
    places.register(data, "flowers", data, replace=True)
    assert places.registrations(data) == {"flowers": data}
    shutil.rmtree(tmp_path / "elsewhere")
    places.register(data, "flowers", tmp_path / "elsewhere", replace=True)
    with pytest.raises(DatasetError, match="no such folder"):
        DATASETS.get("flowers").entry()


def test_many_processes_register_at_once_and_none_is_lost(data: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from workers.datasets import places\n"
        "for i in range(10): places.register(Path(sys.argv[1]), f'{sys.argv[2]}{i}', Path('/somewhere'))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(data), name]) for name in "abc"]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert len(places.registrations(data)) == 30


def test_content_decides_the_fingerprint(data: Path) -> None:
    write_images(data / "pets", {"a": 20, "b": 20}, size=(8, 8))
    dataset = DATASETS.get("pets")
    first = dataset.entry()
    assert dataset.entry() is first
    path = data / "pets" / "a" / "0003.png"
    original, times = path.read_bytes(), path.stat()
    photo(777, (8, 8)).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = dataset.entry().fingerprint
    assert changed != first.fingerprint
    assert ImageFolder("pets").entry().fingerprint == changed
    path.write_bytes(original)
    assert dataset.entry().fingerprint == first.fingerprint
    path.rename(path.with_name("other.png"))
    assert dataset.entry().fingerprint != first.fingerprint
    path.with_name("other.png").rename(path)
    shutil.copytree(data / "pets", data / "pets2")
    assert DATASETS.get("pets2").entry().fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut short", None])
def test_a_damaged_memory_of_hashes_is_read_again(data: Path, home: Path, damage: bytes | None) -> None:
    write_images(data / "pets", {"a": 20, "b": 20}, size=(8, 8))
    for path in (data / "pets").rglob("*.png"):
        os.utime(path, (1, 1))
    first = ImageFolder("pets").entry().fingerprint
    (stored,) = (home / "cache" / "hashes").iterdir()
    stored.write_bytes(stored.read_bytes()[:200] if damage is None else damage)
    assert ImageFolder("pets").entry().fingerprint == first


def test_a_data_set_that_changes_while_it_is_read_is_refused(data: Path) -> None:
    write_images(data / "pets", {"a": 20, "b": 20}, size=(8, 8))
    view = ImageFolder("pets").view()
    photo(1, (8, 8)).save(data / "pets" / "a" / "0001.png")
    with pytest.raises(DatasetError, match=r"0001\.png has changed"):
        view.splits(view.entry().resolve().options)


def test_larger_data_is_given_as_files(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    _, arrays = made("pets", normalisation="imagenet")
    monkeypatch.setenv("ATTUNE_DATA_MEMORY", str(60 * 3 * 64 - 1))
    dataset = DATASETS.get("pets")
    files = dataset.splits(dataset.entry().resolve().options)
    assert isinstance(files, FileSplits)
    for ours, theirs in ((files.train, arrays.train), (files.validation, arrays.validation), (files.test, arrays.test)):
        assert np.array_equal(ours.labels, theirs.labels)
    # so few that the sample is all of them
    assert arrays.histogram is not None
    assert files.histogram is not None
    assert np.array_equal(files.histogram, arrays.histogram)


@pytest.fixture
def small_imagenet(data: Path) -> Path:
    image = data / "one.jpg"
    for number in range(1000):
        for part, count in (("train", 2), ("val", 1)):
            folder = data / "imagenet" / part / f"n{number:08d}"
            folder.mkdir(parents=True)
            for index in range(count):
                # the content must differ, for the split goes by it
                photo(number, (4, 4)).save(image, comment=f"{part} {number} {index}".encode())
                image.rename(folder / f"{index}.JPEG")
    return data / "imagenet"


def test_imagenet(small_imagenet: Path) -> None:
    entry = ImageNet().entry()
    assert entry.input_shape == (3, 224, 224)
    assert entry.classes == 1000
    assert entry.test_size == 1000
    assert entry.train_size + entry.validation_size == 2000
    assert abs(entry.validation_size - 80) < 6 * (2000 * 0.04 * 0.96) ** 0.5
    assert entry.class_names == tuple(Theirs(small_imagenet / "train").classes)
    (small_imagenet / "LOC_synset_mapping.txt").write_text(
        "".join(f"n{number:08d} thing {number}, other name\n" for number in range(1000))
    )
    assert ImageNet().entry().class_names[7] == "thing 7"
    shutil.rmtree(small_imagenet / "val" / "n00000003")
    with pytest.raises(DatasetError, match="999 folders"):
        ImageNet().entry()
    assert "imagenet" not in DATASETS.names()


def test_an_absent_imagenet_says_what_is_expected(data: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        ImageNet().entry()
    for word in ("train/n01440764", "val/n01440764", str(data), "ATTUNE_DATA"):
        assert word in str(caught.value)
