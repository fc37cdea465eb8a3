"""BMP files: every depth, header, compression and layout of bit fields."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tests import picture_files
from tests.picture_files import (
    bmp,
    bmp_header,
    bottom_up,
)
from tests.shown.scene import (
    Case,
    Pixels,
    Samples,
    alphas,
    indexed,
    over_white,
    scene,
)


def cases() -> Iterator[Case]:
    picture = scene()
    for bits in (1, 2, 4, 8):
        indices, palette = indexed(1 << bits)
        yield from _bmp_palettes(bits, indices, palette)
    wide = picture.astype(np.uint32)
    blue, green, red = wide[..., 2], wide[..., 1], wide[..., 0]
    rows24 = picture[..., ::-1].reshape(45, -1)
    for length in (40, 52, 56, 64, 108, 124):
        yield Case(
            f"24 bits, header of {length}", bmp(bmp_header(70, 45, 24, length=length), bottom_up(rows24)), picture
        )
        rows = (0x99000000 | red << 16 | green << 8 | blue).astype("<u4").view(np.uint8)
        yield Case(f"32 bits, header of {length}", bmp(bmp_header(70, 45, 32, length=length), bottom_up(rows)), picture)
        values = (0x8000 | red >> 3 << 10 | green >> 3 << 5 | blue >> 3).astype("<u2").view(np.uint8)
        shown = (picture >> 3).astype(np.int64) * 255 // 31
        data = bmp(bmp_header(70, 45, 16, length=length), bottom_up(values))
        yield Case(f"16 bits, header of {length}", data, shown.astype(np.uint8))
    yield Case("24 bits, from the top", bmp(bmp_header(70, -45, 24), _top_down(rows24)), picture)
    core = struct.pack("<IHHHH", 12, 70, 45, 1, 24)
    yield Case("24 bits, OS/2 1", bmp(core, bottom_up(rows24)), picture)
    yield from _bmp_fields(red, green, blue)
    plain = bmp(bmp_header(70, 45, 24), bottom_up(rows24))
    for name, data in {
        "a wrong length": plain[:2] + struct.pack("<I", 7) + plain[6:],
        "a length of 0": plain[:2] + bytes(4) + plain[6:],
        "a length beyond the file": plain[:2] + struct.pack("<I", 10**9) + plain[6:],
        "a wrong length of its pixels": plain[:34] + struct.pack("<I", 5) + plain[38:],
        "no planes": plain[:26] + b"\0\0" + plain[28:],
        "bytes behind the end": plain + b"more" * 9,
        "no padding behind the last row": plain[:-2],
        "reserved fields": plain[:6] + b"abcd" + plain[10:],
        "resolutions": plain[:38] + struct.pack("<ii", -1, 2**31 - 1) + plain[46:],
        "a gap before the pixels": plain[:10] + struct.pack("<I", 54 + 30) + plain[14:54] + bytes(30) + plain[54:],
        "pixels at 0": plain[:10] + bytes(4) + plain[14:],
        "a palette that serves nothing": bmp(bmp_header(70, 45, 24, colours=256), bottom_up(rows24), bytes(1024)),
    }.items():
        yield Case(f"24 bits, {name}", data, picture)


def _bmp_palettes(bits: int, indices: Samples, palette: Pixels) -> Iterator[Case]:
    rows = np.frombuffer(b"".join(picture_files.packed(row, bits) for row in indices), np.uint8).reshape(45, -1)
    four = np.dstack([palette[:, None, ::-1], np.zeros((len(palette), 1, 1), np.uint8)]).tobytes()
    shown, pixels = palette[indices], bottom_up(rows)
    for length in (40, 52, 56, 64, 108, 124):
        data = bmp(bmp_header(70, 45, bits, length=length), pixels, four)
        yield Case(f"{bits} bits, header of {length}", data, shown)
    yield Case(f"{bits} bits, from the top", bmp(bmp_header(70, -45, bits), _top_down(rows), four), shown)
    for count in (len(palette), len(palette) - 1, 0):
        if count > indices.max() or count == 0:
            data = bmp(bmp_header(70, 45, bits, colours=count), pixels, four[: 4 * (count or len(palette))])
            yield Case(f"{bits} bits, {count} colours", data, shown)
    yield Case(
        f"{bits} bits, more colours than there can be", bmp(bmp_header(70, 45, bits, colours=5000), pixels, four), shown
    )
    if bits != 2:
        core = struct.pack("<IHHHH", 12, 70, 45, 1, bits)
        yield Case(f"{bits} bits, OS/2 1", bmp(core, pixels, palette[:, ::-1].tobytes()), shown)
        short = struct.pack("<IIIHH", 16, 70, 45, 1, bits)
        yield Case(f"{bits} bits, OS/2 2, short", bmp(short, pixels, four), shown)
    yield Case(
        f"{bits} bits, reserved bytes of the palette",
        bmp(bmp_header(70, 45, bits), pixels, b"".join(four[at : at + 3] + b"\xff" for at in range(0, len(four), 4))),
        shown,
    )
    if bits in (4, 8):
        for name, codes in (("runs", _runs(indices, bits)), ("jumps", _jumps(indices, bits))):
            where = shown
            if name == "jumps":
                where = shown.copy()
                where[10:20], where[30:, 40:] = 255, 255
            for length in (40, 108, 124):
                data = bmp(bmp_header(70, 45, bits, 2 if bits == 4 else 1, length=length), codes, four)
                yield Case(f"{bits} bits, {name}, header of {length}", data, where)
            data = bmp(bmp_header(70, 45, bits, 2 if bits == 4 else 1), codes.removesuffix(b"\0\1"), four)
            if name == "runs":
                yield Case(f"{bits} bits, {name} without an end", data, where)


def _top_down(rows: npt.NDArray[Any]) -> bytes:
    return bottom_up(rows[::-1])


def _runs(indices: Samples, bits: int) -> bytes:
    """Runs of up to nine pixels, literals and ends of rows, in turn."""
    out = b""
    for row in indices[::-1].tolist():
        at = 0
        while at < len(row):
            same = next((n for n in range(1, 9) if row[at : at + n + 1] != [row[at]] * (n + 1)), 9)
            part = row[at : at + 7]
            if same >= 3 or len(part) < 3:
                out += bytes((same, row[at] * (17 if bits == 4 else 1)))
                at += same
            else:
                out += _literal(part, bits)
                at += len(part)
        out += b"\0\0"
    return out + b"\0\1"


def _literal(part: list[int], bits: int) -> bytes:
    if bits == 8:
        packed = bytes(part)
    else:
        packed = bytes(high << 4 | low for high, low in zip(part[::2], [*part[1::2], 0], strict=False))
    return bytes((0, len(part))) + packed + bytes(len(packed) % 2)


def _jumps(indices: Samples, bits: int) -> bytes:
    """As with runs, but nothing in rows 10 to 19, and in rows from 30 on nothing from column 40 on."""
    out = b""
    for y in range(44, -1, -1):
        if y == 19:
            out += b"\0\2\0\x0a"
        if 10 <= y < 20:
            continue
        row = indices[y, :40] if y >= 30 else indices[y]
        out += b"".join(
            _literal(part, bits) if len(part) >= 3 else b"".join(bytes((1, v * (17 if bits == 4 else 1))) for v in part)
            for part in (row[at : at + 9].tolist() for at in range(0, len(row), 9))
        )
        out += b"\0\0"
    return out + b"\0\1"


def _bmp_fields(red: Any, green: Any, blue: Any) -> Iterator[Case]:
    alpha = alphas().astype(np.uint32)
    fields = {
        "565": (16, (0xF800, 0x7E0, 0x1F), (5, 6, 5)),
        "555": (16, (0x7C00, 0x3E0, 0x1F), (5, 5, 5)),
        "444": (16, (0xF00, 0xF0, 0xF), (4, 4, 4)),
        "332": (16, (0xE0, 0x1C, 0x3), (3, 3, 2)),
        "BGR": (32, (0xFF, 0xFF00, 0xFF0000), (8, 8, 8)),
        "RGB": (32, (0xFF0000, 0xFF00, 0xFF), (8, 8, 8)),
        "XBGR": (32, (0xFF000000, 0xFF0000, 0xFF00), (8, 8, 8)),
        "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF), (10, 10, 10)),
    }
    for name, (bits, masks, sizes) in fields.items():
        packed, shown = _pack((red, green, blue), masks, sizes, bits)
        for length in (40, 52, 56, 108, 124):
            data = bmp(bmp_header(70, 45, bits, 3, length=length, masks=masks), bottom_up(packed))
            yield Case(f"bit fields {name}, header of {length}", data, shown)
        data = bmp(bmp_header(70, -45, bits, 3, masks=masks), _top_down(packed))
        yield Case(f"bit fields {name}, from the top", data, shown)
    layouts = {
        "BGRA": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (8, 8, 8, 8)),
        "RGBA": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), (8, 8, 8, 8)),
        "ABGR": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (8, 8, 8, 8)),
        "1555": (16, (0x7C00, 0x3E0, 0x1F, 0x8000), (5, 5, 5, 1)),
        "10 bits and 2": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000), (10, 10, 10, 2)),
        "4444": (16, (0xF00, 0xF0, 0xF, 0xF000), (4, 4, 4, 4)),
    }
    for name, (bits, masks, sizes) in layouts.items():
        packed, opaque = _pack((red, green, blue), masks, sizes, bits)
        most = (1 << sizes[3]) - 1
        part = alpha * most // 255
        shift = (masks[3] & -masks[3]).bit_length() - 1
        unit = np.dtype(f"<u{bits // 8}")
        for length, compression in ((56, 3), (108, 3), (124, 3), (40, 6)):
            header = bmp_header(70, 45, bits, compression, length=length, masks=masks)
            whole = (packed.view(unit) | (part << shift).astype(unit)).view(np.uint8)
            yield Case(
                f"alphas {name}, header of {length}", bmp(header, bottom_up(whole)), over_white(opaque, part, most)
            )
            yield Case(f"alphas {name} all 0, header of {length}", bmp(header, bottom_up(packed)), opaque)


def _pack(
    channels: tuple[Any, ...], masks: tuple[int, ...], sizes: tuple[int, ...], bits: int
) -> tuple[npt.NDArray[np.uint8], Pixels]:
    """Rows of bytes, and what they show."""
    values, shown = np.zeros(channels[0].shape, np.uint32), []
    for channel, mask, size in zip(channels, masks, sizes, strict=False):
        most = (1 << size) - 1
        part = channel * most // 255
        values |= part << (mask & -mask).bit_length() - 1
        shown.append(part * 255 // most)
    return values.astype(f"<u{bits // 8}").view(np.uint8), np.dstack(shown).astype(np.uint8)
