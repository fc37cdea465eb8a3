"""GIF files: blocks before the picture, and pictures that cover a part of the screen."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from models.images.pictures import decode
from tests.picture_files import (
    gif,
    parts,
)


def pixels(data: bytes, mode: Literal["RGB", "L"] = "RGB") -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, mode, max_pixels=10**6)).astype(np.int64)


def test_extensions_of_a_gif_do_not_affect_pixels() -> None:
    palette = np.random.default_rng(1).integers(0, 256, (128, 3), dtype=np.uint8)
    frame = np.random.default_rng(2).integers(0, 128, (20, 30), dtype=np.uint8)
    for before in (
        b"\x21\xfe" + b"".join(bytes((len(part),)) + part for part in parts(bytes(300_000), 255)) + b"\0",
        b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0",
        b"\x21\xff\x0bXMP DataXMP" + b"<x/>" * 100 + b"\1" + bytes(range(255, -1, -1)) + b"\0",
        b"\x21\xf9\1\0\0",
        b"\x21\x01\0",
    ):
        assert np.array_equal(pixels(gif((30, 20), frame, (0, 0), palette, before=before)), palette[frame])


def test_a_gif_whose_picture_covers_part_of_the_screen_is_white_around_it() -> None:
    palette = np.random.default_rng(1).integers(0, 200, (128, 3), dtype=np.uint8)
    frame = np.random.default_rng(2).integers(0, 128, (5, 6), dtype=np.uint8)
    expected = np.full((12, 20, 3), 255)
    expected[3:8, 4:10] = palette[frame]
    for options in ({}, {"disposal": 1}, {"disposal": 2}, {"disposal": 3}):
        assert np.array_equal(pixels(gif((20, 12), frame, (4, 3), palette, **options)), expected)
    grey = (expected @ (299, 587, 114) + 500) // 1000
    assert np.abs(pixels(gif((20, 12), frame, (4, 3), palette), "L") - grey).max() <= 1
    expected[3:8, 4:10][frame == frame[0, 0]] = 255
    data = gif((20, 12), frame, (4, 3), palette, transparent=int(frame[0, 0]))
    assert np.array_equal(pixels(data), expected)


def test_a_gif_whose_picture_is_larger_than_the_screen_is_shown_whole() -> None:
    palette = np.random.default_rng(1).integers(0, 200, (128, 3), dtype=np.uint8)
    frame = np.random.default_rng(2).integers(0, 128, (5, 6), dtype=np.uint8)
    assert np.array_equal(pixels(gif((1, 1), frame, (0, 0), palette)), palette[frame])
