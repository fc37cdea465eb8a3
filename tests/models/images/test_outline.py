"""Outlines: what a file's header says of the work of decoding it, read in a time that no file can make long."""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.images.bmp import read_header
from models.images.jpeg import read_markers
from models.images.outline import Outline, glance, of_bmp, of_jpeg, of_webp
from tests.picture_files import (
    bmp,
    bmp_header,
    chunk,
    encode,
    exif,
    gif,
    many_scans,
    png,
    scan_by_scan,
    segment,
    with_segments,
)

SIZE = (60, 40)


def photo(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def known(data: bytes) -> Outline:
    found = glance(data)
    assert found is not None
    return found


@pytest.mark.parametrize(("format", "options", "kind"), [
    ("JPEG", {}, "jpeg"), ("JPEG", {"progressive": True}, "jpeg scans"), ("PNG", {}, "png"), ("WEBP", {}, "webp"),
    ("WEBP", {"lossless": True}, "webp lossless"), ("GIF", {}, "gif"), ("BMP", {}, "bmp"),
    ("WEBP", {"exif": b"Exif\0\0" + exif(6)}, "webp"),
    ("WEBP", {"exif": b"Exif\0\0" + exif(6), "lossless": True}, "webp lossless"),
])  # fmt: skip
def test_kind_size_and_bytes_are_known(format: str, options: dict[str, Any], kind: str) -> None:
    data = encode(photo(), format, **options)
    found = known(data)
    assert (found.kind, found.width, found.height, found.size) == (kind, *SIZE, len(data))


@pytest.mark.parametrize(
    ("mode", "subsampling", "samples"),
    [("RGB", 0, 3.0), ("RGB", 1, 2.0), ("RGB", 2, 1.5), ("L", 0, 1.0), ("CMYK", 0, 4.0)],
)
def test_samples_of_a_jpeg(mode: str, subsampling: int, samples: float) -> None:
    options: dict[str, Any] = {} if mode == "L" else {"subsampling": subsampling}
    found = known(encode(photo(mode), "JPEG", **options))
    assert found.units == pytest.approx(60 * 40 * samples)
    assert found.held == (1.0 if mode == "L" else 4.0)
    progressive = known(encode(photo(mode), "JPEG", progressive=True, **options))
    assert progressive.extra == 2 * samples


def test_each_scan_of_a_jpeg_counts() -> None:
    few, many = (many_scans(Image.new("L", (64, 64)), more) for more in (0, 10))
    outlines = [of_jpeg(read_markers(data, most_parts=1000), data) for data in (few, many)]
    assert outlines[1].units - outlines[0].units == 10 * 64 * 64
    # The first bytes tell nothing of the scans that follow.
    assert known(few).units == known(many).units
    sequential = known(scan_by_scan(64, 0))
    assert (sequential.kind, sequential.extra) == ("jpeg scans", 6.0)


def test_a_jpeg_without_an_end_counts_three_times() -> None:
    whole = encode(photo(), "JPEG")
    found, cut = known(whole), known(whole[:-2])
    assert cut.units == 3 * found.units
    assert cut.extra == 4.0


@pytest.mark.parametrize(("depth", "colour", "row"), [(1, 0, 8), (8, 0, 60), (16, 0, 120), (8, 2, 180), (16, 6, 480)])
def test_units_of_a_png_are_bytes_of_its_rows(depth: int, colour: int, row: int) -> None:
    samples = np.zeros((40, 60, {0: 1, 2: 3, 6: 4}[colour]), np.uint16)
    found = known(png(samples, depth, colour))
    assert found.units == pytest.approx(row * 40, abs=40)
    assert found.kind == ("png alpha" if colour == 6 else "png")


def test_a_png_whose_transparency_is_a_colour_or_a_palette() -> None:
    zeros = np.zeros((9, 9, 3), np.uint8)
    assert known(png(zeros, before=chunk(b"tRNS", bytes(6)))).kind == "png alpha"
    assert known(encode(photo().quantize(256), transparency=bytes(256))).kind == "png alpha"
    assert known(png(zeros, interlaced=True)).kind == "png interlaced"


def test_a_gif_may_have_a_first_frame_beyond_its_screen() -> None:
    pixels, colours = np.zeros((20, 30), np.uint8), np.zeros((128, 3), np.uint8)
    assert known(gif((100, 90), pixels, (10, 5), colours))[1:3] == (100, 90)
    assert known(gif((8, 8), pixels, (10, 5), colours, before=b"\x21\xfe\3abc\0"))[1:3] == (40, 25)


def test_bmp_files_of_runs_fields_and_of_old() -> None:
    runs = bmp(bmp_header(60, 40, 8, 1), b"\0\1", bytes(1024))
    assert known(runs)[:3] == ("bmp runs", 60, 40)
    fields = bmp(bmp_header(60, 40, 16, 3), bytes(4800))
    assert known(fields).kind == "bmp fields"
    old = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 60, 40, 1, 24) + bytes(60 * 40 * 3)
    assert known(old)[:3] == ("bmp", 60, 40)
    negative = bmp(bmp_header(-60, 40, 24), b"")
    assert of_bmp(read_header(negative), negative)[1:3] == (0, 40)  # type: ignore[index]


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\xff\xd8", b"\xff\xd8\xff\xda\0\2", b"BM", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4"]
)
def test_what_is_no_picture_has_no_outline(data: bytes) -> None:
    assert glance(data) is None


@given(
    st.sampled_from([b"\xff\xd8", b"\xff\xd8\xff\xc2\0\x11\x08", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"BM"]),
    st.binary(max_size=200),
)
def test_noise_has_an_outline_or_none(start: bytes, rest: bytes) -> None:
    found = glance(start + rest)
    assert found is None or min(found[1:]) >= 0
    assert min(of_webp(start + rest)[1:]) >= 0


ENDLESS = {
    "segments": b"\xff\xd8" + segment(0xE1, b"x" * 10) * 1_000_000,
    "junk": b"\xff\xd8" + b"\xff\0" * 8_000_000,
    "one JPEG's metadata": with_segments(encode(photo(), "JPEG"), segment(0xE2, bytes(60_000)) * 200),
    "chunks": encode(photo())[:33] + chunk(b"teXt") * 500_000,
    "blocks": encode(photo(), "GIF")[:13] + b"\x21\xfe" + b"\1x" * 5_000_000,
    "WebP chunks": encode(photo(), "WEBP", exif=b"x")[:30] + b"ABCD\0\0\0\0" * 1_000_000,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_no_file_makes_a_glance_long(name: str) -> None:
    """A digit is glanced at a thousand times in the time in which the whole file is copied a few times."""
    data = ENDLESS[name]

    def seconds(file: bytes) -> float:
        times = []
        for _ in range(20):
            started = time.thread_time()
            glance(file)
            times.append(time.thread_time() - started)
        return min(times)

    started = time.thread_time()
    for _ in range(200):
        known(encode(photo(size=(28, 28))))
    assert seconds(data) < time.thread_time() - started
