"""Small pictures of little work are decoded on the event loop; all others are left to threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.images.preprocess import PRESETS
from service.inference.decoding import decode_small
from tests.picture_files import (
    accepted,
    bmp,
    bmp_header,
    chunk,
    encode,
    exif,
    gif,
    many_scans,
    png,
    segment,
    with_segments,
)

LIMIT = 80_000_000


LENET = PRESETS["mnist"]


def flat(side: int, mode: str = "L") -> Image.Image:
    return Image.new(mode, (side, side), 100 if mode == "L" else "teal")


def a_square(**options: Any) -> bytes:
    return png(np.full((40, 40, 3), 100), **options)


def a_frame(**options: Any) -> bytes:
    return gif((8, 8), np.zeros((8, 8), np.uint8), (0, 0), np.zeros((128, 3), np.uint8), **options)


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
