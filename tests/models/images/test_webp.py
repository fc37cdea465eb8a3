"""WebP files: chunks that do not affect pixels, and alpha channels."""

from __future__ import annotations

import struct
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.images.pictures import UndecodableError, decode
from models.images.webp import canvas
from tests.picture_files import (
    SCENE,
    Samples,
    encode,
    exif,
)

PICTURE = Image.fromarray(SCENE.astype(np.uint8))


def pixels(data: bytes, mode: Literal["RGB", "L"] = "RGB") -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, mode, max_pixels=10**6)).astype(np.int64)


def webp(**options: Any) -> bytes:
    """Lossless, with a header that has room for metadata."""
    return encode(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0" + exif(6), **options)


def test_metadata_chunks_of_a_webp_do_not_affect_pixels() -> None:
    whole = webp(icc_profile=bytes(500), xmp=b"<x/>" * 100)
    expected = np.rot90(SCENE, -1)
    assert np.array_equal(pixels(whole), expected)
    at = whole.index(b"EXIF")
    assert np.array_equal(pixels(whole[:at]), SCENE)
    for size in range(at, len(whole), 9):
        assert pixels(whole[:size]).size == SCENE.size
    damaged = {
        "a length that is too long": whole[: at + 4] + b"\xff\xff\xff\x7f" + whole[at + 8 :],
        "damaged EXIF data": whole[: at + 8] + b"\xff" * 30 + whole[at + 38 :],
        "a profile of another length": whole.replace(
            b"ICCP" + struct.pack("<I", 500), b"JUNK" + struct.pack("<I", 500)
        ),
    }
    for name, data in damaged.items():
        assert np.array_equal(np.sort(pixels(data), None), np.sort(SCENE, None)), name


def test_a_webp_that_is_cut_in_its_pixels_is_refused() -> None:
    for data in (webp()[:2000], encode(PICTURE, "WEBP")[:-200]):
        with pytest.raises(UndecodableError, match="truncated"):
            pixels(data)


def blended(over: Samples, alpha: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    return over * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("options", [{"lossless": True, "exact": True}, {"quality": 95}], ids=["lossless", "lossy"])
def test_alphas_of_a_webp(options: dict[str, Any]) -> None:
    colours = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    alpha = np.repeat(np.array([0, 85, 170, 255], np.uint8), 4)[:, None] * np.ones((1, 16), np.uint8)
    data = encode(Image.fromarray(np.dstack([colours, alpha])), "WEBP", **options)
    found = pixels(data)
    assert (found[:4] == 255).all()
    assert np.abs(found - blended(colours, alpha[..., None] / 255)).max() <= (1 if "lossless" in options else 12)


def test_of_two_orientations_in_a_webp_the_first_counts() -> None:
    whole = webp()
    second = exif(8)
    assert len(second) % 2 == 0
    data = whole + b"EXIF" + struct.pack("<I", len(second)) + second
    assert np.array_equal(pixels(data), np.rot90(SCENE, -1))


@pytest.mark.parametrize("size", [(1, 1), (300, 7), (7, 300), (16_383, 2)])
@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0" + exif(6)}], ids=["VP8", "VP8L", "VP8X"]
)
def test_the_size_is_known_before_the_decoder_is_made(size: tuple[int, int], options: dict[str, Any]) -> None:
    data = encode(Image.new("RGB", size), "WEBP", **options)
    assert canvas(data) == size
    assert canvas(data[:24]) == (0, 0)
