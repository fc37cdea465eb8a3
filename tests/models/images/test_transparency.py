"""Transparent pixels over white: every way in which PNG marks them, compared with numpy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from models.images.pictures import decode
from tests.picture_files import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    Samples,
    chunk,
    png,
)

Pixels = npt.NDArray[np.uint8]
SIDE = 21


def pixels(data: bytes, mode: Literal["RGB", "L"] = "RGB") -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, mode, max_pixels=10**6)).astype(np.int64)


def samples(depth: int, channels: int) -> Samples:
    """Random samples, in which one value and its neighbours are frequent."""
    most = (1 << depth) - 1
    values = np.random.default_rng(depth * channels).integers(0, most + 1, (SIDE, SIDE, channels))
    values[::3] = most // 2
    # The same high byte, another low one; and the same low byte, another high one.
    values[1::6] = most // 2 ^ 1
    values[4::6] = most // 2 ^ (1 << depth - 1)
    return values


def in_8_bits(values: Samples, depth: int) -> Samples:
    return values >> 8 if depth == 16 else values * 255 // ((1 << depth) - 1)


def colours(grey_or_rgb: Samples) -> Samples:
    return np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3))


@pytest.mark.parametrize("interlaced", [False, True], ids=["rows", "Adam7"])
@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "keyed"])
@pytest.mark.parametrize(("colour", "depth"), [*((GREY, depth) for depth in (1, 2, 4, 8, 16)), (RGB, 8), (RGB, 16)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_png_with_one_transparent_colour(
    colour: int, depth: int, transparent: bool, interlaced: bool, mode: Literal["RGB", "L"]
) -> None:
    values = samples(depth, 1 if colour == GREY else 3)
    key = values[0, 0]
    found = pixels(png(values, depth, colour, interlaced=interlaced, before=keyed(key) if transparent else b""), mode)
    expected = colours(in_8_bits(values, depth)).copy()
    if transparent:
        where = (values == key).all(2)
        assert 0.3 < where.mean() < 0.8
        expected[where] = 255
    if mode == "L":
        expected = (expected @ (299, 587, 114) + 500) // 1000
        assert np.abs(found - expected).max() <= 1
    else:
        assert np.array_equal(found, expected)


def keyed(colour: Samples) -> bytes:
    return chunk(b"tRNS", colour.astype(">u2").tobytes())


@pytest.mark.parametrize(("colour", "depth"), [(GREY, 1), (GREY, 2), (GREY, 4), (GREY, 8), (RGB, 8)])
def test_bits_of_the_transparent_colour_beyond_the_depth_are_ignored(colour: int, depth: int) -> None:
    """As in libpng, and so in browsers."""
    values = samples(depth, 1 if colour == GREY else 3)
    key = values[0, 0]
    plain, more = (pixels(png(values, depth, colour, before=keyed(bits))) for bits in (key, key + (1 << depth)))
    assert np.array_equal(plain, more)
    assert (plain == 255).mean() > 0.3


@pytest.mark.parametrize("interlaced", [False, True], ids=["rows", "Adam7"])
@pytest.mark.parametrize("alphas", [None, [0], [255, 0], [0, 128, 255, 40]], ids=["opaque", "first", "second", "four"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_png_of_a_palette(depth: int, alphas: list[int] | None, interlaced: bool) -> None:
    values = samples(depth, 1)
    values[:, ::2] = np.arange(SIDE)[:, None, None] % min(4, 1 << depth)
    palette = np.random.default_rng(0).integers(0, 256, (1 << depth, 3))
    alpha = np.full(1 << depth, 255)
    before = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if alphas is not None:
        alphas = alphas[: 1 << depth]
        alpha[: len(alphas)] = alphas
        before += chunk(b"tRNS", bytes(alphas))
    found = pixels(png(values, depth, PALETTE, interlaced=interlaced, before=before))
    expected = blended(palette[values[..., 0]], alpha[values[..., 0]][..., None] / 255)
    assert np.abs(found - expected).max() <= (0 if alphas in (None, [0], [255, 0]) else 1)


def blended(over: Samples, alpha: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    return over * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("interlaced", [False, True], ids=["rows", "Adam7"])
@pytest.mark.parametrize("colour", [GREY_ALPHA, RGB_ALPHA])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_with_an_alpha_channel(depth: int, colour: int, interlaced: bool) -> None:
    values = samples(depth, 2 if colour == GREY_ALPHA else 4)
    values[:5, ..., -1], values[5:9, ..., -1] = 0, (1 << depth) - 1
    # Not allowed here, and without meaning.
    before = keyed(values[10, 10, :1]) if colour == GREY_ALPHA else b""
    found = pixels(png(values, depth, colour, interlaced=interlaced, before=before))
    full = (1 << depth) - 1
    expected = blended(colours(values[..., :-1]) * (255 / full), values[..., -1:] / full)
    assert (found[:5] == 255).all()
    assert np.abs(found - expected).max() < 2


@pytest.mark.parametrize(
    "chunks",
    [
        chunk(b"tRNS", b"\0\7\0\0\0\0", checksum=1),
        chunk(b"tRNS", b"\0\7"),
        chunk(b"tRNS", b"\0\7\0\0\0\0\0\0"),
        chunk(b"tRNS"),
    ],
    ids=["wrong checksum", "too short", "too long", "empty"],
)
def test_a_damaged_transparent_colour_is_ignored(chunks: bytes) -> None:
    values = np.full((4, 4, 3), (7, 0, 0))
    assert np.array_equal(pixels(png(values, before=chunks)), values)


def test_a_second_or_late_transparent_colour_is_ignored() -> None:
    values = np.full((4, 4, 3), (7, 0, 0))
    assert np.array_equal(pixels(png(values, after=keyed(values[0, 0]))), values)
    assert np.array_equal(pixels(png(values, before=keyed(values[0, 0] + 1) + keyed(values[0, 0]))), values)
