"""Data sets in the very formats that torchvision reads, made small, in a home of each test's own."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from workers.datasets.cifar_files import CIFAR10, Variant

Pixels = NDArray[np.uint8]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ATTUNE_HOME, with ATTUNE_DATA below it."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    monkeypatch.setenv("ATTUNE_HOME", str(home))
    monkeypatch.delenv("ATTUNE_DATA", raising=False)
    monkeypatch.setenv("ATTUNE_DATA_WORKERS", "2")
    return home


@pytest.fixture
def data(home: Path) -> Path:
    """The folder of data sets."""
    return home / "data"


def photo(seed: int, size: tuple[int, int] = (40, 30), *, grey: bool = False) -> Image.Image:
    """Smooth random colours (so that JPEG keeps them nearly), width × height."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5) if grey else (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def write_images(folder: Path, classes: dict[str, int], *, seed: int = 0, suffix: str = ".png", **how: Any) -> None:
    """`classes`: how many images of each."""
    for number, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            photo(seed + 1000 * number + index, **how).save(folder / name / f"{index:04d}{suffix}")


def cifar_batches(variant: Variant, per_file: int = 20, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The content of each file, as the published ones have it."""
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, Any]] = {}
    for name in (*variant.train, *variant.test):
        pixels = rng.integers(0, 256, (per_file, 3072), np.uint8)
        labels = [(index * 7 + len(found)) % variant.classes for index in range(per_file)]
        found[name] = {"data": pixels, variant.labels: labels, "batch_label": name, "filenames": ["a.png"] * per_file}
        if variant is not CIFAR10:
            found[name]["coarse_labels"] = [label // 5 for label in labels]
    (meta,) = variant.meta
    found[meta] = {variant.names: [f"class {label}" for label in range(variant.classes)], "num_vis": 3072}
    return found


def write_cifar(root: Path, variant: Variant, per_file: int = 20, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Writes the variant's folder below `root`, in the protocol of the published files."""
    content = cifar_batches(variant, per_file, seed)
    (root / variant.folder).mkdir(parents=True, exist_ok=True)
    for name, entry in content.items():
        (root / variant.folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    return content


@pytest.fixture
def without_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's readers refuse files that are not the published ones; this lets them read ours."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).is_file())
