"""Transparency over white: every way in which PNG, BMP, GIF and WebP say what is transparent, against numpy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.images.pictures import decode
from tests.picture_files import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    Samples,
    bmp,
    bmp_header,
    bottom_up,
    chunk,
    encode,
    gif,
    png,
)

Pixels = npt.NDArray[np.uint8]
SIDE = 21


def pixels(data: bytes, mode: Literal["RGB", "L"] = "RGB") -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, mode, max_pixels=10**6)).astype(np.int64)


def samples(depth: int, channels: int) -> Samples:
    """Random ones, in which values and their neighbours occur often."""
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
def test_a_png_of_which_one_colour_is_transparent(
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
def test_bits_of_the_transparent_colour_that_samples_lack_count_for_nothing(colour: int, depth: int) -> None:
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
def test_a_damaged_transparent_colour_counts_as_none(chunks: bytes) -> None:
    values = np.full((4, 4, 3), (7, 0, 0))
    assert np.array_equal(pixels(png(values, before=chunks)), values)


def test_a_transparent_colour_behind_the_pixels_or_a_second_one_counts_for_nothing() -> None:
    values = np.full((4, 4, 3), (7, 0, 0))
    assert np.array_equal(pixels(png(values, after=keyed(values[0, 0]))), values)
    assert np.array_equal(pixels(png(values, before=keyed(values[0, 0] + 1) + keyed(values[0, 0]))), values)


def scene() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (9, 7, 3), dtype=np.uint8)


#: Masks of red, green, blue and alpha.
BGRA, RGBA, ABGR = (
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
)


def bmp_of(
    scene: Pixels, alpha: Pixels, masks: tuple[int, ...], *, bits: int = 32, length: int = 124, down: bool = False
) -> bytes:
    """A BMP of bit fields."""
    pixels = np.zeros(scene.shape[:2], np.uint64)
    for values, mask in zip((*np.moveaxis(scene, 2, 0), alpha), masks, strict=False):
        width = bin(mask).count("1")
        if width:
            pixels |= (values.astype(np.uint64) * ((1 << width) - 1) // 255) << ((mask & -mask).bit_length() - 1)
    rows = pixels.astype(f"<u{bits // 8}")
    height, across = scene.shape[:2]
    header = bmp_header(across, -height if down else height, bits, 3, length=length, masks=masks)
    return bmp(header, bottom_up(rows[::-1] if down else rows))


@pytest.mark.parametrize("down", [False, True], ids=["bottom-up", "top-down"])
@pytest.mark.parametrize("length", [56, 108, 124])
@pytest.mark.parametrize("masks", [BGRA, RGBA, ABGR, (0xFF00, 0xFF0000, 0xFF000000, 0xFF)])
def test_alphas_of_a_bmp(masks: tuple[int, ...], length: int, down: bool) -> None:
    colours = scene()
    some = np.where(np.arange(9)[:, None] < 4, 0, 255 * np.ones((9, 7), np.uint8)).astype(np.uint8)
    expected = np.where(some[..., None] == 0, 255, colours)
    assert np.array_equal(pixels(bmp_of(colours, some, masks, length=length, down=down)), expected)
    half = np.full((9, 7), 128, np.uint8)
    found = pixels(bmp_of(colours, half, masks, length=length, down=down))
    assert np.abs(found - blended(colours, half[..., None] / 255)).max() <= 1
    # The writer had nothing to put there.
    none = np.zeros((9, 7), np.uint8)
    assert np.array_equal(pixels(bmp_of(colours, none, masks, length=length, down=down)), colours)


@pytest.mark.parametrize(("bits", "masks"), [
    (16, (0xF800, 0x7E0, 0x1F)), (16, (0x7C00, 0x3E0, 0x1F)), (16, (0xF00, 0xF0, 0xF)), (16, (0x1F, 0x7E0, 0xF800)),
    (32, (0xFF0000, 0xFF00, 0xFF)), (32, (0xFF, 0xFF00, 0xFF0000)), (32, (0x3FF00000, 0xFFC00, 0x3FF)),
    (32, (0xE0000000, 0x1C00, 0x3)),
])  # fmt: skip
@pytest.mark.parametrize("length", [40, 52, 108])
def test_bit_fields_of_a_bmp_without_alpha(bits: int, masks: tuple[int, ...], length: int) -> None:
    colours = scene()
    found = pixels(bmp_of(colours, np.zeros((9, 7), np.uint8), masks, bits=bits, length=length))
    for channel, mask in enumerate(masks):
        levels = (1 << bin(mask).count("1")) - 1
        expected = colours[..., channel].astype(int) * levels // 255 * 255 / levels
        assert np.abs(found[..., channel] - expected).max() <= 1


def test_alphas_of_a_16_bit_bmp() -> None:
    colours = scene()
    some = np.where(np.arange(9)[:, None] < 4, 0, 255 * np.ones((9, 7), np.uint8)).astype(np.uint8)
    found = pixels(bmp_of(colours, some, (0x7C00, 0x3E0, 0x1F, 0x8000), bits=16))
    assert (found[:4] == 255).all()
    assert np.abs(found[4:] - colours[4:].astype(int) * 31 // 255 * 255 / 31).max() <= 1
    opaque = pixels(bmp_of(colours, some * 0, (0x7C00, 0x3E0, 0x1F, 0x8000), bits=16))
    assert np.array_equal(opaque[4:], found[4:])


@pytest.mark.parametrize("length", [40, 56, 108, 124])
def test_the_fourth_byte_of_a_bmp_without_bit_fields_is_no_alpha(length: int) -> None:
    colours = scene()
    four = np.dstack([colours[..., ::-1], np.arange(63, dtype=np.uint8).reshape(9, 7)])
    found = pixels(bmp(bmp_header(7, 9, 32, length=length), bottom_up(four.reshape(9, -1))))
    assert np.array_equal(found, colours)


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


@pytest.mark.parametrize("options", [{"lossless": True, "exact": True}, {"quality": 95}], ids=["lossless", "lossy"])
def test_alphas_of_a_webp(options: dict[str, Any]) -> None:
    colours = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    alpha = np.repeat(np.array([0, 85, 170, 255], np.uint8), 4)[:, None] * np.ones((1, 16), np.uint8)
    data = encode(Image.fromarray(np.dstack([colours, alpha])), "WEBP", **options)
    found = pixels(data)
    assert (found[:4] == 255).all()
    assert np.abs(found - blended(colours, alpha[..., None] / 255)).max() <= (1 if "lossless" in options else 12)
