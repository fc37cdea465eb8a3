"""Bytes that are refused: the error tells the caller why, and no other exception is raised."""

from __future__ import annotations

import resource
import struct
import zlib
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from models.images import pictures
from models.images.pictures import (
    FORMATS,
    PictureError,
    TooManyPixelsError,
    UndecodableError,
    decode,
)
from models.images.preprocess import PRESETS, picture_to_crop
from models.images.shrink import Shrink
from tests.pictures import photo


def refuse(data: bytes, *, max_pixels: int = 80_000_000) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode(data, "RGB", max_pixels=max_pixels)
    assert "\n" not in str(caught.value)
    return caught.value


def png(width: int, height: int) -> bytes:
    """A PNG whose header states that size, with hardly any pixel data behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_truncated_file_is_called_truncated(format: str, share: float) -> None:
    data = photo(200, format)
    error = refuse(data[: int(len(data) * share)])
    assert isinstance(error, UndecodableError)
    assert format in str(error).upper()
    assert "truncated" in str(error)


@pytest.mark.parametrize("data", [b"", b"\x00", b"hello, world", b"{image}", bytes(5000), b"\xff" * 5000])
def test_bytes_of_no_picture_format_are_called_so(data: bytes) -> None:
    error = refuse(data)
    assert isinstance(error, UndecodableError)
    assert "no picture" in str(error)


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (10_000, 10_000), (8_945, 8_945), (2**31 - 1, 1)])
def test_too_many_pixels_are_refused_on_the_header(width: int, height: int) -> None:
    """Before a pixel is decoded: 50,000 x 50,000 would take 7.5 GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = refuse(png(width, height))
    assert isinstance(error, TooManyPixelsError)
    assert "80,000,000" in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 * 1024  # KiB


def test_the_limit_itself_is_allowed() -> None:
    data = photo(20, "PNG")
    assert decode(data, "RGB", max_pixels=400).size == (20, 20)
    assert "20 x 20 = 400 pixels; the limit is 399" in str(refuse(data, max_pixels=399))


@cache
def seeds() -> tuple[bytes, ...]:
    return tuple(photo(40, format) for format in ("JPEG", "PNG", "GIF", "WEBP", "BMP"))


def accept_or_refuse(data: bytes) -> None:
    for preset in ("torchvision-224", "mnist"):
        preprocess = PRESETS[preset]
        try:
            crop = picture_to_crop(data, preprocess, max_pixels=100_000)
        except PictureError:
            continue
        assert crop.shape == (preprocess.side, preprocess.side, preprocess.channels)


# Pillow warns of small damage (EXIF, MPO, APNG) and goes on; pytest would make an error of the warning.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 4),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1),
)
def test_a_damaged_picture_is_answered_or_refused(seed: int, edits: list[tuple[float, int]], keep: float) -> None:
    data = bytearray(seeds()[seed])
    for place, value in edits:
        # Squared, so that half of the damage falls into the first quarter, where the headers are.
        data[int(place * place * len(data))] = value
    accept_or_refuse(bytes(data))
    accept_or_refuse(bytes(data[: int(keep * len(data))]))


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP"]),
    rest=st.binary(max_size=400),
)
@example(start=b"GIF89a", rest=bytes(7))
@example(start=b"BM", rest=bytes(60))
def test_noise_is_answered_or_refused(start: bytes, rest: bytes) -> None:
    accept_or_refuse(start + rest)


@settings(max_examples=100, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1),
    rows=st.integers(1, 40),
)
def test_a_damaged_picture_is_answered_or_refused_in_strips(
    edits: list[tuple[float, int]], keep: float, rows: int
) -> None:
    data = bytearray(photo(30, "PNG"))
    for place, value in edits:
        data[int(place * place * len(data))] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "WHOLE_PIXELS", 0)
        patch.setattr(Shrink, "edges", lambda _self, _width, height: sorted({*range(0, height, rows), height}))
        accept_or_refuse(bytes(data))
        accept_or_refuse(bytes(data[: int(keep * len(data))]))


def test_a_picture_without_pixels_is_refused() -> None:
    for width, height in ((0, 0), (0, 5), (5, 0)):
        assert isinstance(refuse(png(width, height)), UndecodableError)


def test_pillows_own_limit_is_left_on() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("format", FORMATS)
def test_pillows_limit_is_not_ours(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TOPFIVE_MAX_PIXELS may be larger than what Pillow opens, twice its own limit, and then that many are decoded."""
    data = photo(20, format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(data, "RGB", max_pixels=400).size == (20, 20)
    assert "20 x 20 = 400 pixels; the limit is 399" in str(refuse(data, max_pixels=399))


@pytest.mark.parametrize("format", FORMATS)
def test_a_memory_error_is_not_turned_into_a_refusal(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    data = photo(20, format)
    monkeypatch.setattr(ImageFile.ImageFile, "__init__", full)
    monkeypatch.setattr(pictures, "WebPAnimDecoder", full)
    with pytest.raises(MemoryError):
        decode(data, "RGB", max_pixels=400)
