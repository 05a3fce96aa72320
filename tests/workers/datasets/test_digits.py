"""The digits against scikit-learn's own loader, and splits that stay where they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from workers.datasets import DATASETS, DatasetError, digits
from workers.datasets.splitting import Shares, split_indices, split_of


def test_the_source_is_scikit_learns() -> None:
    theirs, ours = load_digits(), digits.read_source()
    assert np.array_equal(ours.labels, theirs.target)
    assert np.array_equal(np.ceil(ours.images / 255 * 16), theirs.images)
    assert len(set(ours.identities)) == 1797


def test_growing_data_moves_no_sample() -> None:
    identities = digits.read_source().identities
    shares = Shares(validation=0.2, test=0.2)
    few = {identity: split_of(0, identity, shares) for identity in identities[::3]}
    found = split_indices(0, identities, shares)
    many = {identities[i]: name for name, indices in found.items() for i in indices}
    assert all(many[identity] == name for identity, name in few.items())
    assert sorted(i for indices in found.values() for i in indices) == list(range(1797))


def test_the_shares_are_about_right_and_the_seed_matters() -> None:
    identities = digits.read_source().identities
    first, second = (split_indices(seed, identities, Shares(0.2, 0.2)) for seed in (0, 1))
    # six standard deviations of a binomial with n = 1797 and p = 0.2
    assert abs(len(first["test"]) - 1797 * 0.2) < 6 * (1797 * 0.2 * 0.8) ** 0.5
    assert first["test"] != second["test"]


@pytest.mark.parametrize("size", [8, 16, 20])
def test_images_are_enlarged_by_repeating_pixels(size: int) -> None:
    dataset = DATASETS.get("digits")
    native, large = dataset.splits({"image_size": 8}), dataset.splits({"image_size": size})
    assert large.test.images.shape == (len(native.test.labels), 1, size, size)
    for row, column in [(0, 0), (size - 1, size // 2), (5, 3)]:
        expected = native.test.images[:, 0, row * 8 // size, column * 8 // size]
        assert np.array_equal(large.test.images[:, 0, row, column], expected)


@pytest.mark.parametrize(
    "content",
    # named, as packed data hold the time
    [
        b"not gzip",
        pytest.param(gzip.compress(b"1,2,3\n"), id="short"),
        pytest.param(gzip.compress(b"hello\n"), id="words"),
        None,
    ],
)
def test_a_broken_source_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    path = tmp_path / "digits.csv.gz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(digits, "_path", lambda: path)
    with pytest.raises(DatasetError, match=r"cannot be read|not scikit-learn"):
        digits.read_source.__wrapped__()
