"""From image files to uint8 arrays, with Pillow; the same pixels as torchvision's transforms on the same file.

Orientation in EXIF is not applied, as in torchvision's ImageFolder. Transparency is dropped. 16-bit grey keeps its
upper 8 bits (Pillow's own conversion would clip).
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from search.errors import shown
from workers.datasets.errors import DatasetError, UnreadableImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
"""Pillow knows more, some of which start other programs."""
MODES = {"grey": "L", "rgb": "RGB"}
MOST_PIXELS = 89_478_485
"""Pillow's own limit, above which a small file may fill the memory when decoded (a decompression bomb)."""

Colour = Literal["grey", "rgb"]
Pixels = NDArray[np.uint8]
"""C × H × W."""


@dataclass(frozen=True)
class Frame:
    """How an image becomes C × size × size. crop: share of the resized short side that the centre crop keeps."""

    size: int
    colour: Colour
    crop: float = 1.0

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the image, resized, and mirrored half the time (C. Szegedy et al., Going Deeper with
    Convolutions, 2015, section 6, https://arxiv.org/abs/1409.4842; torchvision's RandomResizedCrop and
    RandomHorizontalFlip).

    scale: smallest and largest share of the image's area. ratio: smallest and largest width / height.
    flip: probability of mirroring.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5


Status = tuple[int, int, int]
"""Size in bytes, times of the last change of content and of inode in ns: what a listing has seen of a file."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings about odd files are not shown meanwhile, in any thread: what matters is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(path: str, colour: Colour, status: Status | None = None) -> Image.Image:
    """The decoded image.

    UnreadableImageError when it cannot be decoded; DatasetError when the file is gone or is not the one with `status`.
    """
    try:
        with open(path, "rb") as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode):
                raise DatasetError(f"{path} is no file.")
            if status is not None and status != (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns):
                raise DatasetError(f"{path} has changed since the data set was listed.")
            try:
                with Image.open(file, formats=FORMATS) as image:
                    _check_size(image)
                    return _in_colour(image, colour)
            except Image.DecompressionBombError as error:
                raise UnreadableImageError(path, f"over {MOST_PIXELS:,} pixels") from error
            except UnidentifiedImageError as error:
                raise UnreadableImageError(path, f"no image in one of the formats {', '.join(FORMATS)}") from error
            except MemoryError:
                raise
            except Exception as error:
                raise UnreadableImageError(path, shown(f"{error or type(error).__name__}", 200).strip("'\"")) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Image.DecompressionBombError
    if not width * height:
        raise ValueError("no pixels")


def _in_colour(image: Image.Image, colour: Colour) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} (32 bits) are not supported")
    image.load()
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert(MODES[colour])
    return image.convert(MODES[colour])


def centre(image: Image.Image, frame: Frame) -> Image.Image:
    """Short side resized to size / crop, then the middle: torchvision's Resize (antialiased, bilinear), CenterCrop."""
    image = _resized_short_side(image, round(frame.size / frame.crop))
    width, height = image.size
    top, left = round((height - frame.size) / 2), round((width - frame.size) / 2)
    return image.crop((left, top, left + frame.size, top + frame.size))


def _resized_short_side(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    short, long = sorted((width, height))
    if short == size:
        return image
    other = int(size * long / short)
    return image.resize((size, other) if width <= height else (other, size), Image.Resampling.BILINEAR)


def random_crop(image: Image.Image, frame: Frame, crop: RandomCrop, rng: random.Random) -> Image.Image:
    """A part of the image drawn as torchvision's RandomResizedCrop draws it, resized and perhaps mirrored."""
    left, top, width, height = _crop_box(image.size, crop, rng)
    part = image.crop((left, top, left + width, top + height))
    part = part.resize((frame.size, frame.size), Image.Resampling.BILINEAR)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < crop.flip else part


def _crop_box(size: tuple[int, int], crop: RandomCrop, rng: random.Random) -> tuple[int, int, int, int]:
    """Left, top, width, height."""
    width, height = size
    low, high = (math.log(ratio) for ratio in crop.ratio)
    for _ in range(10):
        area = width * height * rng.uniform(*crop.scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, width - w), rng.randint(0, height - h), w, h
    # none of the shapes fits: the middle, as near to the allowed shapes as there is
    w, h = width, height
    if width / height < crop.ratio[0]:
        h = max(1, round(width / crop.ratio[0]))
    elif width / height > crop.ratio[1]:
        w = max(1, round(height * crop.ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h


def to_pixels(image: Image.Image) -> Pixels:
    """C × H × W, uint8."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def look(path: str) -> tuple[bool, int] | None:
    """Whether an image is grey, and its short side, from its header alone; None when that cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"), min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
