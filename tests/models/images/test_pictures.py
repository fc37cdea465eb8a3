"""Every format and mode that callers send becomes an upright picture of 8 bits over white."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.images.pictures import FORMATS, decode

Pixels = npt.NDArray[np.generic]


def encode(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def pixels(data: bytes, mode: Literal["RGB", "L"] = "RGB") -> Pixels:
    picture = decode(data, mode, max_pixels=10**6)
    assert picture.mode == mode
    return np.asarray(picture)


def corners() -> Image.Image:
    """Four colours, no two sides alike, and not square: every turn and mirror image shows."""
    picture = Image.new("RGB", (48, 32), "red")
    picture.paste("lime", (24, 0, 48, 16))
    picture.paste("blue", (0, 16, 24, 32))
    picture.paste("yellow", (24, 16, 48, 32))
    return picture


@pytest.mark.parametrize(("format", "options"), [
    ("PNG", {}), ("GIF", {}), ("BMP", {}), ("WEBP", {"lossless": True}),
])  # fmt: skip
def test_lossless_formats_keep_every_pixel(format: str, options: dict[str, Any]) -> None:
    assert np.array_equal(pixels(encode(corners(), format, **options)), np.asarray(corners()))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "optimize": True}], ids=str)
@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_stay_close(format: str, options: dict[str, Any]) -> None:
    found = pixels(encode(corners(), format, quality=95, **options)).astype(int)
    assert found.shape == (32, 48, 3)
    assert np.abs(found - np.asarray(corners()).astype(int)).mean() < 6


def test_the_list_of_formats_is_the_documented_one() -> None:
    assert set(FORMATS) == {"JPEG", "PNG", "WEBP", "GIF", "BMP"}


#: EXIF orientation -> what makes the stored pixels upright.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(encode(corners(), format, exif=exif, quality=95)).astype(int)
    expected = UPRIGHT[orientation](np.asarray(corners()))
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(int)).mean() < 6


def test_grey_and_one_bit() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pixels(encode(Image.fromarray(ramp)), "L"), ramp)
    assert np.array_equal(pixels(encode(Image.fromarray(ramp))), np.stack([ramp] * 3, 2))
    bits = Image.fromarray(ramp).point(lambda value: 255 * (value > 99), "1")
    assert np.array_equal(pixels(encode(bits), "L"), np.where(ramp > 99, 255, 0))


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    found = pixels(encode(Image.fromarray(values)), "L")
    assert np.array_equal(found, values // 256)
    assert found.max() == 255
    assert len(np.unique(found)) == 256


def test_palettes() -> None:
    assert np.array_equal(pixels(encode(corners().quantize(8))), np.asarray(corners()))


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palettes_transparent_entry_shows_white(format: str) -> None:
    picture = corners().quantize(8)
    red = picture.getpixel((0, 0))
    expected = np.asarray(corners()).copy()
    expected[:16, :24] = 255
    assert np.array_equal(pixels(encode(picture, format, transparency=red)), expected)


def test_transparent_pixels_lie_over_white() -> None:
    picture = Image.new("RGBA", (2, 1))
    picture.putpixel((0, 0), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 100, 128))
    hidden, half = pixels(encode(picture))[0]
    assert hidden.tolist() == [255, 255, 255]
    assert half.tolist() == pytest.approx([227, 127, 177], abs=1)
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (0, 128))
    assert pixels(encode(grey), "L")[0].tolist() == pytest.approx([255, 127], abs=1)


@pytest.mark.parametrize(
    ("mode", "colour"), [("RGB", (10, 20, 30)), ("L", 10), ("1", 0)], ids=["colour", "grey", "one bit"]
)
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_a_colour_that_a_png_calls_transparent_shows_white(
    mode: str, colour: int | tuple[int, ...], wanted: Literal["RGB", "L"]
) -> None:
    """Such a file has no alpha channel, and Pillow may decode it to the wanted mode at once."""
    data = encode(Image.new(mode, (3, 2), colour), transparency=colour)
    assert (pixels(data, wanted) == 255).all()


def test_cmyk() -> None:
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = pixels(encode(picture, "JPEG", quality=95))[8, 8]
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=40)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert np.abs(pixels(data).astype(int) - (255, 0, 0)).max() <= 2


def test_a_jpeg_with_a_second_picture_behind_it() -> None:
    """MPO: many cameras write a JPEG with a preview or a depth map behind the picture."""
    data = encode(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32), "black")])
    assert np.abs(pixels(data).astype(int) - np.asarray(corners()).astype(int)).mean() < 10


# Pillow warns of the damage and goes on; pytest would make an error of the warning.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("body", [b"MM\0*" + b"\xff" * 20, b"MM\0*\0\0\0\x08\0\x09", b"no TIFF at all", b""])
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
def test_a_picture_with_damaged_exif_data_is_decoded(format: str, body: bytes) -> None:
    assert pixels(encode(corners(), format, exif=b"Exif\0\0" + body)).shape == (32, 48, 3)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 900), height=st.integers(1, 900), at_least=st.integers(1, 300))
def test_a_jpeg_decoded_smaller_keeps_the_size_that_is_asked_for(width: int, height: int, at_least: int) -> None:
    data = encode(Image.new("RGB", (width, height), "gray"), "JPEG")
    found = decode(data, "RGB", max_pixels=10**6, at_least=at_least)
    assert min(found.size) >= min(at_least, width, height)
    scale = next((scale for scale in (8, 4, 2) if min(width, height) >= scale * at_least), 1)
    assert found.size == (math.ceil(width / scale), math.ceil(height / scale))


def test_without_a_size_every_pixel_is_decoded() -> None:
    data = encode(Image.new("RGB", (800, 640)), "JPEG")
    assert decode(data, "RGB", max_pixels=10**6).size == (800, 640)
    assert decode(data, "RGB", max_pixels=10**6, at_least=80).size == (100, 80)
