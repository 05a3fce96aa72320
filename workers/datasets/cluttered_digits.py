"""`cluttered-digits`: a digit at a random place on a larger canvas, among fragments of other digits.

The classic test bed of attention: V. Mnih et al., Recurrent Models of Visual Attention, 2014, section 4.1
(https://arxiv.org/abs/1406.6247); M. Jaderberg et al., Spatial Transformer Networks, 2015, appendix A
(https://arxiv.org/abs/1506.02025). Theirs are made of MNIST, these of scikit-learn's digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.datasets import DatasetEntry, DatasetOption, OptionValue
from workers.datasets.digits import CLASS_NAMES, SIZE, SOURCE, Source, read_source
from workers.datasets.splits import ArraySplits, Split
from workers.datasets.splitting import Shares, SplitName, derived_seed, split_indices

SHARES = Shares(validation=0.2, test=0.2)
COPIES: Mapping[SplitName, str] = {"train": "copies", "validation": "eval_copies", "test": "eval_copies"}
COMPOSITION = 1
"""To be raised whenever the same options would give other images."""

OPTIONS = (
    DatasetOption(
        name="canvas",
        type="int",
        default=16,
        minimum=12,
        maximum=96,
        doc="Height and width of an image; the digit keeps its 8 × 8 pixels.",
        sets="image_size",
    ),
    DatasetOption(name="fragments", type="int", default=4, minimum=0, maximum=64, doc="Fragments of other digits."),
    DatasetOption(
        name="fragment_size",
        type="int",
        default=3,
        minimum=2,
        maximum=8,
        doc="Height and width of a fragment, in pixels.",
    ),
    DatasetOption(
        name="copies", type="int", default=6, minimum=1, maximum=64, doc="Training images made of each training digit."
    ),
    DatasetOption(
        name="eval_copies", type="int", default=4, minimum=1, maximum=64, doc="The same for validation and test."
    ),
    DatasetOption(
        name="seed", type="int", default=0, minimum=0, maximum=2**31 - 1, doc="Decides splits, places and fragments."
    ),
)


class ClutteredDigits:
    """Splits the digits first and composes afterwards: a digit of one split is never seen in an image of another."""

    name = "cluttered-digits"
    evaluator: str | None = None

    def entry(self) -> DatasetEntry:
        source = read_source()
        defaults: dict[str, OptionValue] = {option.name: option.default for option in OPTIONS}
        found = split_indices(int(defaults["seed"]), source.identities, SHARES)
        sizes = {name: len(indices) * int(defaults[COPIES[name]]) for name, indices in found.items()}
        return DatasetEntry(
            name=self.name,
            title="Handwritten digits among clutter",
            source=f"{SOURCE}; composed as in Mnih et al. 2014, https://arxiv.org/abs/1406.6247",
            input_shape=(1, int(defaults["canvas"]), int(defaults["canvas"])),
            classes=len(CLASS_NAMES),
            class_names=CLASS_NAMES,
            train_size=sizes["train"],
            validation_size=sizes["validation"],
            test_size=sizes["test"],
            fingerprint=hashlib.sha256(f"{source.fingerprint} {SHARES} {COMPOSITION}".encode()).hexdigest(),
            options=OPTIONS,
        )

    def splits(self, options: Mapping[str, Any]) -> ArraySplits:
        source = read_source()
        found = split_indices(options["seed"], source.identities, SHARES)
        return ArraySplits(
            *(compose(source.take(found[name]), options, name) for name in ("train", "validation", "test"))
        )


def compose(source: Source, options: Mapping[str, Any], split: SplitName) -> Split:
    """`copies` images of each digit of `source`, which is also where the fragments come from.

    Where strokes overlap, the brighter pixel stays.
    """
    copies, fragments = options[COPIES[split]], options["fragments"]
    rng = np.random.default_rng(derived_seed("cluttered-digits", options["seed"], split))
    count = len(source.labels)
    digit = np.repeat(np.arange(count), copies)
    images = np.zeros((len(digit), options["canvas"], options["canvas"]), np.uint8)
    _paste(images, source.images[digit], rng)
    for _ in range(fragments):
        other = (digit + rng.integers(1, count, len(digit))) % count
        _paste(images, _fragments(source.images[other], options["fragment_size"], rng), rng)
    return Split(images[:, None], source.labels[digit], tuple(source.identities[i] for i in digit))


def _fragments(digits: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random size × size window of each digit (N × 8 × 8 → N × size × size)."""
    corner = rng.integers(0, SIZE - size + 1, (2, len(digits)))
    return digits[_windows(corner, size)]


def _paste(images: NDArray[np.uint8], patches: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Puts patch i at a random place wholly inside image i."""
    size = patches.shape[-1]
    corner = rng.integers(0, images.shape[-1] - size + 1, (2, len(images)))
    window = _windows(corner, size)
    images[window] = np.maximum(images[window], patches)


def _windows(corner: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Indices (N × size × size after broadcasting) of the windows with these top-left corners (2 × N)."""
    offset = np.arange(size)
    rows = corner[0][:, None] + offset
    columns = corner[1][:, None] + offset
    return np.arange(corner.shape[1])[:, None, None], rows[:, :, None], columns[:, None, :]
