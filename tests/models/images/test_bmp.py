"""BMP files: every command of run lengths in 4 and 8 bits, layouts of bit fields, and alpha channels."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.images.pictures import UndecodableError, decode
from tests.picture_files import (
    Samples,
    bmp,
    bmp_header,
    bottom_up,
)

PALETTE = np.random.default_rng(0).integers(0, 250, (256, 3), dtype=np.uint8)
END_OF_LINE, END = b"\0\0", b"\0\1"


def runs(width: int, height: int, commands: bytes, *, bits: int = 8, colours: int = 0, length: int = 40) -> bytes:
    palette = np.zeros((colours or 1 << bits, 4), np.uint8)
    palette[:, :3] = PALETTE[: len(palette), ::-1]
    header = bmp_header(width, height, bits, 1 if bits == 8 else 2, colours=colours, length=length)
    return bmp(header, commands, palette.tobytes())


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(decode(data, "RGB", max_pixels=10**6))


def colours(rows: list[list[int | None]]) -> npt.NDArray[np.uint8]:
    """The colours of rows of palette indices, the last row first; None stands for a pixel that no run covers."""
    white = (255, 255, 255)
    return np.array([[white if i is None else PALETTE[i] for i in row] for row in rows[::-1]], np.uint8)


def test_runs_and_literals_of_8_bits() -> None:
    data = b"\3\7\2\x09" + END_OF_LINE + b"\0\3\1\2\3\0\2\4" + END_OF_LINE + b"\0\4\5\6\7\x08\1\5" + END_OF_LINE + END
    rows: list[list[int | None]] = [[7, 7, 7, 9, 9], [1, 2, 3, 4, 4], [5, 6, 7, 8, 5]]
    for length in (40, 108, 124):
        assert np.array_equal(pixels(runs(5, 3, data, length=length)), colours(rows))
    assert np.array_equal(pixels(runs(5, 3, data, colours=10)), colours(rows))
    assert np.array_equal(pixels(runs(5, -3, data)), colours(rows[::-1]))


def test_runs_and_literals_of_4_bits() -> None:
    data = b"\5\x7a" + END_OF_LINE + b"\0\5\x12\x34\x50\0" + END_OF_LINE + b"\0\3\x67\x80\2\xff" + END
    rows: list[list[int | None]] = [[7, 10, 7, 10, 7], [1, 2, 3, 4, 5], [6, 7, 8, 15, 15]]
    assert np.array_equal(pixels(runs(5, 3, data, bits=4)), colours(rows))


def test_pixels_that_no_run_covers_are_white() -> None:
    """Behind a line that ends early, between skips, and after an early end of the picture, as in browsers."""
    data = b"\2\3" + END_OF_LINE + b"\1\4" + b"\0\2\2\1" + b"\1\5" + END
    rows: list[list[int | None]] = [[3, 3, None, None], [4, None, None, None], [None, None, None, 5], [None] * 4]
    assert np.array_equal(pixels(runs(4, 4, data)), colours(rows))


def test_runs_beyond_the_picture_are_ignored() -> None:
    data = b"\xff\3" + END_OF_LINE + b"\0\4\1\2\3\4" + END_OF_LINE + b"\0\2\xff\0\1\1" + END_OF_LINE + b"\1\1" + END
    rows: list[list[int | None]] = [[3, 3, 3], [1, 2, 3], [None] * 3]
    assert np.array_equal(pixels(runs(3, 3, data)), colours(rows))
    assert (pixels(runs(3, 3, b"\0\2\0\xff\1\1" + END)) == 255).all()


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_file_that_is_cut_is_refused(cut: int) -> None:
    whole = runs(4, 2, b"\4\3" + b"\0\0" + b"\0\4\1\2\3\4")
    assert pixels(whole + b"\0\0").shape == (2, 4, 3)
    with pytest.raises(UndecodableError, match="truncated"):
        pixels(whole[:-cut])


@settings(max_examples=100, deadline=None)
@given(bits=st.sampled_from([4, 8]), width=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_random_pictures(bits: int, width: int, seed: int) -> None:
    """Each line in runs and literals of random lengths."""
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 1 << bits, (3, width))
    indices[:, : width // 2] = indices[:, :1]
    data = b""
    for row in indices:
        at = 0
        while at < width:
            count = min(int(rng.integers(1, 9)), width - at)
            part = [int(index) for index in row[at : at + count]]
            if len(set(part)) == 1:
                data += bytes((count, part[0] if bits == 8 else part[0] << 4 | part[0]))
            elif count >= 3:
                padded = [*part, 0] if bits == 4 and count % 2 else part
                body = bytes(
                    padded if bits == 8 else [a << 4 | b for a, b in zip(padded[::2], padded[1::2], strict=True)]
                )
                data += bytes((0, count)) + body + bytes(len(body) % 2)
            else:
                count = 1
                data += bytes((1, part[0] if bits == 8 else part[0] << 4))
            at += count
        data += END_OF_LINE
    assert np.array_equal(pixels(runs(width, 3, data + END, bits=bits)), PALETTE[indices[::-1]])


def test_a_header_may_state_more_colours_than_there_are() -> None:
    """Pillow would read as many colours as the header states."""
    header = bmp_header(4, 1, 8, colours=60_000)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, :3] = PALETTE[:, ::-1]
    data = bmp(header, bytes((1, 2, 3, 4)), palette.tobytes())
    assert struct.unpack_from("<I", data, 46) == (60_000,)
    assert np.array_equal(pixels(data), PALETTE[None, 1:5])


Pixels = npt.NDArray[np.uint8]


def blended(over: Samples, alpha: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    return over * alpha + 255 * (1 - alpha)


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
