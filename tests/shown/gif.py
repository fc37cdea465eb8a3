"""GIF files: palettes, interlacing, transparency, and first frames of any place and size."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tests import picture_files
from tests.shown.scene import (
    Case,
    Pixels,
    Samples,
    disc,
    indexed,
    scene,
)


def _gif_file(
    *blocks: bytes, size: tuple[int, int] = (70, 45), palette: Pixels | None = None, version: bytes = b"GIF89a",
    background: int = 0, end: bytes = b";",
) -> bytes:  # fmt: skip
    flags = 0x70 if palette is None else 0xF0 | _bits(palette) - 1
    table = b"" if palette is None else palette.tobytes().ljust(3 << _bits(palette), b"\0")
    return version + struct.pack("<HHBBB", *size, flags, background, 0) + table + b"".join(blocks) + end


def _gif_frame(
    indices: Samples, at: tuple[int, int] = (0, 0), *, palette: Pixels | None = None, interlaced: bool = False,
    code: int = 8, codes: bytes | None = None,
) -> bytes:  # fmt: skip
    """An image block. Its codes are literals, with a clear code often enough that they never become longer."""
    height, width = indices.shape
    flags = (0 if palette is None else 0x80 | _bits(palette) - 1) | interlaced << 6
    table = b"" if palette is None else palette.tobytes().ljust(3 << _bits(palette), b"\0")
    if interlaced:
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
        indices = indices[order]
    data = gif_codes(indices.ravel().tolist(), code) if codes is None else codes
    parts = b"".join(bytes((len(part),)) + part for part in picture_files.parts(data, 255))
    return b"," + struct.pack("<HHHHB", *at, width, height, flags) + table + bytes((code,)) + parts + b"\0"


def _bits(palette: Pixels) -> int:
    return max(1, (len(palette) - 1).bit_length())


def gif_codes(values: list[int], code: int, *, clear: bool = True, end: bool = True) -> bytes:
    """GIF's LZW. Without clear codes: of the whole alphabet, as encoders write it, and with a full table at the end."""
    first, bits, count = 1 << code, 0, 0

    def put(value: int, size: int) -> None:
        nonlocal bits, count
        bits |= value << count
        count += size

    if clear:
        room = first - 2
        for at, value in enumerate(values):
            if at % room == 0:
                put(first, code + 1)
            put(value, code + 1)
        size = code + 1
    else:
        table: dict[tuple[int, ...], int] = {(value,): value for value in range(first)}
        size, most, prefix = code + 1, first + 2, ()
        put(first, size)
        for value in values:
            if (*prefix, value) in table:
                prefix = (*prefix, value)
                continue
            put(table[prefix], size)
            if most < 4096:
                table[*prefix, value] = most
                size = min(12, most.bit_length())
                most += 1
            prefix = (value,)
        put(table[prefix], size)
        size = min(12, most.bit_length()) if most < 4096 else 12
    if end:
        put(first + 1, size)
    return bits.to_bytes((count + 7) // 8, "little")


def _control(transparent: int | None = None, disposal: int = 0) -> bytes:
    return b"\x21\xf9\x04" + bytes((disposal << 2 | (transparent is not None), 5, 0, transparent or 0, 0))


def cases() -> Iterator[Case]:
    picture, hole = scene(), disc()
    for count in (2, 4, 16, 64, 256):
        indices, palette = indexed(count)
        code = max(2, (count - 1).bit_length())
        shown = palette[indices]
        other = np.roll(palette, 1, 0)
        values = indices.ravel().tolist()
        for name, data in {
            "": _gif_file(_gif_frame(indices, code=code), palette=palette),
            "interlaced": _gif_file(_gif_frame(indices, code=code, interlaced=True), palette=palette),
            "local palette": _gif_file(_gif_frame(indices, code=code, palette=palette), palette=other),
            "local palette alone": _gif_file(_gif_frame(indices, code=code, palette=palette)),
            "of 1987": _gif_file(_gif_frame(indices, code=code), palette=palette, version=b"GIF87a"),
            "no trailer": _gif_file(_gif_frame(indices, code=code), palette=palette, end=b""),
            "bytes behind the end": _gif_file(_gif_frame(indices, code=code), palette=palette, end=b";more"),
            "compressed": _gif_file(
                _gif_frame(indices, code=code, codes=gif_codes(values, code, clear=False)), palette=palette
            ),
            "no end of codes": _gif_file(
                _gif_frame(indices, code=code, codes=gif_codes(values, code, end=False)), palette=palette
            ),
            "two controls": _gif_file(
                _control(transparent=0), _control(), _gif_frame(indices, code=code), palette=palette
            ),
            "comments, loops and profiles": _gif_file(
                b"\x21\xfe\x05hello\0",
                b"\x21\xff\x0bNETSCAPE2.0\x03\1\0\0\0",
                b"\x21\xff\x0bICCRGBG1012\x02ab\0",
                b"\x21\xff\x0bXMP DataXMP" + b"\3abc" + b"\0",
                _gif_frame(indices, code=code),
                palette=palette,
            ),
        }.items():
            yield Case(f"{count} colours {name}", data, shown)
        see = np.where(hole, 0, np.where(indices == 0, 1, indices))
        white = np.where(hole[..., None], 255, palette[see]).astype(np.uint8)
        for disposal in range(4):
            for interlaced in (False, True):
                frame = _gif_frame(see, code=code, interlaced=interlaced)
                data = _gif_file(_control(0, disposal), frame, palette=palette)
                yield Case(f"{count} colours, transparent, disposal {disposal}, {interlaced=}", data, white)
                frames = _control(None, disposal) + _gif_frame(indices, code=code, interlaced=interlaced)
                more = _control(None, 2) + _gif_frame(indices[:9, :9], (3, 3), code=code)
                data = _gif_file(frames, more, palette=palette, background=1)
                yield Case(f"{count} colours, animated, disposal {disposal}, {interlaced=}", data, shown)
    yield from _gif_frames(picture)


def _gif_frames(picture: Pixels) -> Iterator[Case]:
    indices, palette = indexed(32)
    shown = palette[indices]
    for at, name in (((0, 0), "at the corner"), ((9, 7), "in the middle"), ((30, 20), "at the far corner")):
        left, top = at
        part = indices[top : top + 25, left : left + 40]
        expected = np.full_like(picture, 255)
        expected[top : top + 25, left : left + 40] = palette[part]
        for interlaced in (False, True):
            frame = _gif_frame(part, at, interlaced=interlaced)
            for background in (0, 5):
                data = _gif_file(_control(), frame, palette=palette, background=background)
                yield Case(f"smaller than the screen, {name}, {background=}, {interlaced=}", data, expected)
        data = _gif_file(_control(2), _gif_frame(part, at), palette=palette, background=3)
        see = expected.copy()
        see[top : top + 25, left : left + 40][part == 2] = 255
        yield Case(f"smaller than the screen, {name}, transparent", data, see)
    yield Case("larger than the screen", _gif_file(_gif_frame(indices), size=(40, 30), palette=palette), shown)
    yield Case("a screen of no size", _gif_file(_gif_frame(indices), size=(0, 0), palette=palette), shown)
    one = np.array([[12, 200, 60]], np.uint8)
    flat = np.zeros((45, 70), np.int64)
    yield Case("1 colour", _gif_file(_gif_frame(flat, code=2), palette=one), one[flat])
    yield Case("1 x 1", _gif_file(_gif_frame(flat[:1, :1], code=2), size=(1, 1), palette=one), one[flat[:1, :1]])
    everywhere = _gif_file(_control(0), _gif_frame(flat, code=2), palette=one)
    yield Case("transparent everywhere", everywhere, np.full_like(picture, 255))
    few, colours = indexed(4)
    yield Case("longer codes than colours", _gif_file(_gif_frame(few, code=7), palette=colours), colours[few])
    outside = _gif_file(_control(200), _gif_frame(few, code=8), palette=colours)
    yield Case("a transparent index beyond the palette", outside, colours[few])
