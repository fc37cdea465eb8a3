"""Small pictures of little work are decoded on the event loop; all others are left to threads."""

from __future__ import annotations

import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.images.preprocess import PRESETS, Preprocess
from service.inference.decoding import decode_small
from tests.picture_files import (
    a_frame,
    a_square,
    accepted,
    bmp,
    bmp_header,
    chunk,
    encode,
    exif,
    flat,
    many_scans,
    segment,
    with_segments,
)

LIMIT = 80_000_000


LENET = PRESETS["mnist"]


SMALL = {
    "PNG": encode(flat(28)),
    "JPEG": encode(flat(28, "RGB"), "JPEG"),
    "progressive JPEG": encode(flat(28, "RGB"), "JPEG", progressive=True),
    "JPEG of 12 scans": many_scans(flat(28), 6),
    "GIF": encode(flat(28), "GIF"),
    "WEBP": encode(flat(28, "RGB"), "WEBP"),
    "BMP": encode(flat(28), "BMP"),
    "JPEG with EXIF": encode(flat(28, "RGB"), "JPEG", exif=b"Exif\0\0" + exif(6)),
    "PNG with text": a_square(before=chunk(b"tEXt", b"Comment\0" + b"x" * 500)),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_plain_small_picture_is_decoded_on_the_event_loop(name: str) -> None:
    assert decode_small(SMALL[name], LENET, LIMIT) is not None


LATER = {
    "scans": many_scans(flat(128), 60),
    "13 scans": many_scans(flat(128), 7),
    "segments": with_segments(encode(flat(28), "JPEG"), segment(0xFE) * 500),
    "chunks": a_square(before=chunk(b"teXt") * 200),
    "blocks": a_frame(before=b"\x21\xfe" + b"\1x" * 1000 + b"\0"),
    "runs": bmp(bmp_header(128, 128, 8, 1), b"\1\1\0\0" * 128 + b"\0\1", bytes(1024)),
    "pixels": encode(flat(500)),
    "no end": encode(flat(28, "RGB"), "JPEG")[:-2],
}


@pytest.mark.parametrize("name", LATER)
def test_a_small_file_that_takes_long_is_left_to_a_thread(name: str) -> None:
    assert len(LATER[name]) <= 4096
    assert decode_small(LATER[name], LENET, LIMIT) is None
    assert accepted(LATER[name])


def pictures_of_four_kilobytes() -> st.SearchStrategy[bytes]:
    """What callers may send: any format, mode and shape, scans and chunks, as long as the file is small."""
    sides = st.one_of(st.integers(1, 64), st.integers(1, 1500))

    @st.composite
    def made(draw: st.DrawFn) -> bytes:
        size = draw(sides), draw(sides)
        mode = draw(st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK"]))
        format = draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]))
        if format == "JPEG" or (mode == "CMYK" and format != "JPEG"):
            mode = {"1": "L", "P": "RGB", "RGBA": "RGB"}.get(mode, mode if format == "JPEG" else "RGB")
        picture = Image.new("RGB", size, draw(st.sampled_from(["teal", "black"]))).convert(mode)
        if draw(st.booleans()):
            noise = np.random.default_rng(0).integers(0, 256, (min(40, size[1]), min(40, size[0]), 3), np.uint8)
            picture.paste(Image.fromarray(noise).convert(mode), (0, 0))
        if format == "JPEG" and draw(st.booleans()):
            return many_scans(picture, draw(st.integers(0, 30)))
        if format == "WEBP" and mode == "1":
            picture = picture.convert("RGB")
        options: dict[str, Any] = {"lossless": draw(st.booleans())} if format == "WEBP" else {}
        data = encode(picture, format, **options)
        if format == "PNG" and draw(st.booleans()):
            bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6), 9))
            data = data[:33] + bomb * draw(st.integers(1, 3)) + data[33:]
        return data

    return made()


@settings(max_examples=120, deadline=None)
@given(pictures_of_four_kilobytes(), st.sampled_from(sorted(PRESETS)))
def test_what_is_decoded_on_the_event_loop_never_takes_many_times_a_digit(data: bytes, preset: str) -> None:
    """Whatever is accepted takes no longer than 16 digits, measured in the same moment."""
    preprocess = PRESETS[preset]
    if len(data) > 4096 or decode_small(data, preprocess, LIMIT) is None:
        return

    def seconds(file: bytes, wanted: Preprocess) -> float:
        times = []
        for _ in range(5):
            started = time.thread_time()
            decode_small(file, wanted, LIMIT)
            times.append(time.thread_time() - started)
        return min(times)

    assert seconds(data, preprocess) < 16 * seconds(SMALL["PNG"], LENET)
