"""Pixels against torchvision's transforms on the same files, and files that must not be decoded."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor

from tests.workers.datasets.conftest import photo
from workers.datasets import decoding
from workers.datasets.decoding import Frame, RandomCrop
from workers.datasets.errors import DatasetError, UnreadableImageError


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (33, 33), (17, 91), (8, 300)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_centre_is_torchvisions_resize_and_centre_crop(
    tmp_path: Path, size: tuple[int, int], crop: float, suffix: str
) -> None:
    path = tmp_path / f"image{suffix}"
    photo(1, size).save(path)
    frame = Frame(24, "rgb", crop)
    ours = decoding.to_pixels(decoding.centre(decoding.read(str(path), "rgb"), frame))
    theirs = transforms.Compose([transforms.Resize(round(24 / crop)), transforms.CenterCrop(24)])
    expected = pil_to_tensor(theirs(Image.open(path).convert("RGB"))).numpy()
    assert ours.shape == frame.shape
    assert np.array_equal(ours, expected)


@pytest.mark.parametrize(
    ("mode", "colour", "shape"),
    [("L", "grey", (1, 9, 9)), ("L", "rgb", (3, 9, 9)), ("RGB", "grey", (1, 9, 9)), ("RGBA", "rgb", (3, 9, 9)),
     ("P", "rgb", (3, 9, 9)), ("1", "grey", (1, 9, 9)), ("LA", "grey", (1, 9, 9))],
)  # fmt: skip
def test_every_kind_of_pixel_becomes_the_colour_that_is_asked_for(
    tmp_path: Path, mode: str, colour: decoding.Colour, shape: tuple[int, int, int]
) -> None:
    path = tmp_path / "image.png"
    photo(2, (9, 9)).convert(mode).save(path)
    pixels = decoding.to_pixels(decoding.read(str(path), colour))
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8
    expected = Image.open(path).convert("L" if colour == "grey" else "RGB")
    assert np.array_equal(pixels, pil_to_tensor(expected).numpy())


def test_16_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [40_000, 65_535, 511]], np.uint16)
    Image.fromarray(values).save(tmp_path / "image.png")
    assert decoding.to_pixels(decoding.read(str(tmp_path / "image.png"), "grey")).tolist() == [
        [[0, 0, 1], [156, 255, 1]]
    ]


def test_cmyk_jpegs_are_read(tmp_path: Path) -> None:
    """ImageNet has some."""
    photo(3).convert("CMYK").save(tmp_path / "image.jpg")
    assert decoding.to_pixels(decoding.read(str(tmp_path / "image.jpg"), "rgb")).shape == (3, 30, 40)


def encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    photo(4).save(buffer, format)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded("JPEG")[:-300], "(?i)truncated"),
        (encoded("PNG")[:-300], "truncated"),
        (encoded("WEBP")[:60], ""),
        (b"", "no image"),
        (b"not an image", "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage", "no image"),
        (png_of_size(9_460, 9_460), "pixels"),
        (png_of_size(20_000, 20_000), "pixels"),
        (png_of_size(2**31 - 1, 2**31 - 1), "pixels"),
    ],
    ids=["jpeg", "png", "webp", "empty", "text", "eps", "bomb", "larger bomb", "largest bomb"],
)
def test_what_cannot_be_decoded_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with decoding.quiet(), pytest.raises(UnreadableImageError, match=reason) as caught:
        decoding.read(str(path), "rgb")
    assert str(path) in str(caught.value)


def test_a_large_photo_is_no_bomb(tmp_path: Path) -> None:
    Image.new("L", (9_400, 9_500)).save(tmp_path / "image.png")
    assert decoding.read(str(tmp_path / "image.png"), "grey").size == (9_400, 9_500)


def test_a_file_that_is_not_the_one_that_was_listed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    photo(5).save(path)
    seen = path.stat()
    status = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    assert decoding.read(str(path), "rgb", status).size == (40, 30)
    with pytest.raises(DatasetError, match="changed"):
        decoding.read(str(path), "rgb", (seen.st_size, seen.st_mtime_ns - 1, seen.st_ctime_ns))
    path.unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        decoding.read(str(path), "rgb", status)


def test_random_crops_are_drawn_as_torchvision_draws_them() -> None:
    """Areas and shapes of many crops, against torchvision's own: means within six standard errors."""
    image, crop = photo(6, (80, 60)), RandomCrop(scale=(0.2, 0.8))
    rng = random.Random(0)
    torch.manual_seed(0)
    ours, theirs = [], []
    for _ in range(3000):
        left, top, width, height = decoding._crop_box(image.size, crop, rng)
        assert 0 <= left <= 80 - width
        assert 0 <= top <= 60 - height
        ours.append((width * height, width / height, left, top))
        params = transforms.RandomResizedCrop.get_params(image, list(crop.scale), list(crop.ratio))
        theirs.append((params[3] * params[2], params[3] / params[2], params[1], params[0]))
    a, b = np.array(ours), np.array(theirs)
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    assert (np.abs(a.mean(0) - b.mean(0)) < 6 * error).all()


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3, 2)])
def test_images_of_odd_shapes_are_cropped_within_themselves(size: tuple[int, int]) -> None:
    rng = random.Random(1)
    for _ in range(50):
        left, top, width, height = decoding._crop_box(size, RandomCrop(), rng)
        assert width >= 1
        assert height >= 1
        assert 0 <= left <= size[0] - width
        assert 0 <= top <= size[1] - height


def test_half_of_the_crops_are_mirrored() -> None:
    image = Image.fromarray(np.arange(0, 250, 10, np.uint8)[None].repeat(25, 0))
    frame, rng = Frame(25, "grey"), random.Random(2)
    mirrored = 0
    for _ in range(400):
        pixels = np.asarray(decoding.random_crop(image, frame, RandomCrop(), rng)).astype(int)
        mirrored += pixels[0, 0] > pixels[0, -1]
    assert abs(mirrored - 200) < 6 * 10


def test_a_crop_of_everything_unmirrored_is_the_resized_image() -> None:
    image = photo(7, (32, 32))
    whole = RandomCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    made = decoding.random_crop(image, Frame(16, "rgb"), whole, random.Random(0))
    assert np.array_equal(np.asarray(made), np.asarray(transforms.Resize((16, 16))(image)))
