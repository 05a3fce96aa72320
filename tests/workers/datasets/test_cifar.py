"""CIFAR-10 and CIFAR-100 against torchvision's own readers."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from search.datasets import DatasetEntry
from tests.workers.datasets.conftest import write_cifar
from workers.datasets import ArraySplits, DatasetError
from workers.datasets.cifar import Cifar
from workers.datasets.cifar_files import CIFAR10, CIFAR100, Variant, checksum_problems
from workers.datasets.pickles import load

VARIANTS = pytest.mark.parametrize("variant", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])


def opened(variant: Variant, **options: Any) -> tuple[DatasetEntry, ArraySplits]:
    dataset = Cifar(variant)
    entry = dataset.entry()
    splits = dataset.splits(entry.resolve(options).options)
    assert isinstance(splits, ArraySplits)
    return entry, splits


def theirs(variant: Variant, root: Path, *, train: bool) -> Any:
    reader = torchvision.datasets.CIFAR10 if variant is CIFAR10 else torchvision.datasets.CIFAR100
    return reader(root, train=train)


@VARIANTS
@pytest.mark.usefixtures("without_checksums")
def test_images_and_labels_are_torchvisions(data: Path, variant: Variant) -> None:
    write_cifar(data, variant)
    entry, splits = opened(variant)
    train, test = theirs(variant, data, train=True), theirs(variant, data, train=False)
    assert np.array_equal(splits.test.images.transpose(0, 2, 3, 1), test.data)
    assert splits.test.labels.tolist() == test.targets
    ours = {}
    for split in (splits.train, splits.validation):
        ours |= dict(zip([image.transpose(1, 2, 0).tobytes() for image in split.images], split.labels, strict=True))
    assert ours == dict(zip([image.tobytes() for image in train.data], train.targets, strict=True))
    assert entry.class_names == tuple(train.classes)
    assert (entry.train_size, entry.validation_size) == (len(splits.train.labels), len(splits.validation.labels))
    assert entry.class_counts == tuple(np.bincount(splits.train.labels, minlength=variant.classes))


def test_known_files_and_checksums_are_torchvisions() -> None:
    for ours, reader in ((CIFAR10, torchvision.datasets.CIFAR10), (CIFAR100, torchvision.datasets.CIFAR100)):
        assert ours.folder == reader.base_folder
        assert ours.archive == reader.filename
        assert ours.files == dict(
            [*reader.train_list, *reader.test_list, [reader.meta["filename"], reader.meta["md5"]]]
        )
        assert ours.names == reader.meta["key"]


def test_images_that_are_added_move_none(data: Path) -> None:
    write_cifar(data, CIFAR10, per_file=20)
    _, before = opened(CIFAR10)
    content = pickle.loads((data / CIFAR10.folder / "data_batch_2").read_bytes())
    content["data"] = np.concatenate([content["data"], np.random.default_rng(9).integers(0, 256, (30, 3072), np.uint8)])
    content["labels"] += [3] * 30
    (data / CIFAR10.folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    _, after = opened(CIFAR10)
    assert len(after.train.labels) + len(after.validation.labels) == 130
    assert set(before.train.identities) <= set(after.train.identities)
    assert set(before.validation.identities) <= set(after.validation.identities)


def test_the_validation_share_and_the_seed_decide_the_split(data: Path) -> None:
    write_cifar(data, CIFAR10, per_file=100)
    _, tenth = opened(CIFAR10)
    _, third = opened(CIFAR10, validation_share=0.33)
    _, other = opened(CIFAR10, split_seed=1)
    # six standard deviations of a binomial with n = 500
    assert abs(len(third.validation.labels) - 165) < 6 * (500 * 0.33 * 0.67) ** 0.5
    assert set(tenth.validation.identities) < set(third.validation.identities)
    assert set(tenth.validation.identities) != set(other.validation.identities)


@pytest.mark.parametrize("size", [16, 48])
def test_images_are_resized_as_pillow_does(data: Path, size: int) -> None:
    from torchvision.transforms.functional import pil_to_tensor as to_tensor
    from torchvision.transforms.functional import resize, to_pil_image

    content = write_cifar(data, CIFAR10)
    _, splits = opened(CIFAR10, image_size=size)
    assert splits.test.images.shape == (20, 3, size, size)
    original = to_pil_image(content["test_batch"]["data"][3].reshape(3, 32, 32).transpose(1, 2, 0))
    assert np.array_equal(splits.test.images[3], to_tensor(resize(original, [size, size])).numpy())


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (pickle.dumps({"data": Evil(), "labels": []}), "system"),
        (pickle.dumps({"data": np.array([Evil()], dtype=object), "labels": []}), "not allowed"),
        (b"cbuiltins\neval\n(S'1+1'\ntR.", "builtins.eval"),
        (b"c_codecs\nencode\n(Vx\nVzlib\ntR.", "zlib"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"", "pickle"),
        (pickle.dumps([1, 2]), "data"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}), "float32"),
        (pickle.dumps({"data": np.zeros((2, 3000), np.uint8), "labels": [0, 1]}), "3000"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "labels"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}), "labels"),
    ],
)
def test_a_file_that_is_not_cifars_is_refused_and_nothing_in_it_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(data, CIFAR10)
    (data / CIFAR10.folder / "data_batch_4").write_bytes(content)
    with pytest.raises(DatasetError, match=told) as caught:
        Cifar(CIFAR10).entry()
    assert "data_batch_4" in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_numpys_old_and_new_pickles_are_read(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for protocol in (0, 1, 2, 3, 4):
        (tmp_path / "file").write_bytes(pickle.dumps({"data": array, "n": [1, "é"]}, protocol=protocol))
        found = load(tmp_path / "file")
        assert np.array_equal(found["data"], array)
        assert found["n"] == [1, "é"]
    old = pickle.dumps({"data": array}, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "file").write_bytes(old)
    assert np.array_equal(load(tmp_path / "file")["data"], array)


@VARIANTS
def test_missing_files_are_named_with_the_place(data: Path, variant: Variant) -> None:
    with pytest.raises(DatasetError) as caught:
        Cifar(variant).entry()
    for word in (variant.folder, str(data), "ATTUNE_DATA", variant.archive, *variant.files):
        assert word in str(caught.value)
    write_cifar(data, variant)
    missing = list(variant.files)[-2]
    (data / variant.folder / missing).unlink()
    with pytest.raises(DatasetError, match=f"lacks {missing}"):
        Cifar(variant).entry()


def test_a_changed_file_is_seen_and_gives_another_fingerprint(data: Path) -> None:
    write_cifar(data, CIFAR10)
    dataset = Cifar(CIFAR10)
    first = dataset.entry()
    assert dataset.entry() is first
    write_cifar(data, CIFAR10, seed=1)
    assert dataset.entry().fingerprint != first.fingerprint
    write_cifar(data, CIFAR10)
    assert dataset.entry().fingerprint == first.fingerprint


def test_a_checksum_that_differs_is_told_and_the_published_one_is_not(data: Path) -> None:
    from dataclasses import replace

    write_cifar(data, CIFAR10)
    place = Cifar(CIFAR10).place()
    problems = checksum_problems(CIFAR10, place)
    assert len(problems) == 7
    assert "data_batch_1" in problems[0]
    good = hashlib.md5((place.path / "test_batch").read_bytes()).hexdigest()
    assert len(checksum_problems(replace(CIFAR10, test={"test_batch": good}), place)) == 6


def test_a_link_out_of_the_folder_is_refused(data: Path, tmp_path: Path) -> None:
    write_cifar(tmp_path / "elsewhere", CIFAR10)
    (data / CIFAR10.folder).symlink_to(tmp_path / "elsewhere" / CIFAR10.folder)
    with pytest.raises(DatasetError, match="symbolic link out of"):
        Cifar(CIFAR10).entry()
    (data / CIFAR10.folder).unlink()
    write_cifar(data, CIFAR10)
    (data / CIFAR10.folder / "test_batch").unlink()
    (data / CIFAR10.folder / "test_batch").symlink_to(tmp_path / "elsewhere" / CIFAR10.folder / "test_batch")
    with pytest.raises(DatasetError, match="symbolic link out of"):
        Cifar(CIFAR10).entry()
