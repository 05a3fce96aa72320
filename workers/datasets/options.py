"""Options that data sets on disk have in common."""

from __future__ import annotations

from collections.abc import Mapping

from search.datasets import DatasetOption

NORMALISATIONS: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Means and standard deviations of red, green and blue as shares of 255, as published weights expect them."""
LARGEST = 1024
MOST_SEED = 2**31 - 1


def image_size(default: int, minimum: int = 8, maximum: int = LARGEST) -> DatasetOption:
    return DatasetOption(
        name="image_size",
        type="int",
        default=default,
        minimum=minimum,
        maximum=maximum,
        doc="Height and width of an image after resizing and cropping.",
        sets="image_size",
    )


def colour(default: str) -> DatasetOption:
    return DatasetOption(
        name="colour",
        type="choice",
        default=default,
        choices=("grey", "rgb"),
        doc="Channels: grey 1, rgb 3. Images of the other kind are converted.",
        sets="channels",
    )


def crop(default: float) -> DatasetOption:
    return DatasetOption(
        name="crop",
        type="float",
        default=default,
        minimum=0.5,
        maximum=1.0,
        doc="Share of the resized image's short side that the centre crop keeps.",
    )


def normalisation(default: str = "training") -> DatasetOption:
    return DatasetOption(
        name="normalisation",
        type="choice",
        default=default,
        choices=("training", *NORMALISATIONS),
        doc="Mean and deviation by which pixels are scaled: those of the training images, or published ones.",
    )


def validation_share(default: float) -> DatasetOption:
    return _share("validation_share", default, "Expected share of the training images to validate on.")


def test_share(default: float) -> DatasetOption:
    return _share("test_share", default, "Expected share of the images kept apart as the test split.")


def _share(name: str, default: float, doc: str) -> DatasetOption:
    return DatasetOption(name=name, type="float", default=default, minimum=0.001, maximum=0.45, doc=doc)


def split_seed() -> DatasetOption:
    doc = "Decides, with an image's content, which split it belongs to."
    return DatasetOption(name="split_seed", type="int", default=0, minimum=0, maximum=MOST_SEED, doc=doc)


def skip_corrupt() -> DatasetOption:
    doc = "Leave out images that cannot be decoded, and count them, instead of refusing the data set."
    return DatasetOption(name="skip_corrupt", type="bool", default=False, doc=doc)
