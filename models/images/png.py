"""The chunks of a PNG file that decide about its pixels, apart from all others.

Text, profiles and times are left out before a decoder sees the file: they may hold megabytes compressed to kilobytes,
and Pillow refuses a file for damage in them, or for more than 1 MB of text. Frames of an animation behind the picture
are left out as well.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from models.images.errors import TooManyPartsError
from models.images.exif import orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3
#: Bytes of a transparent colour, by colour type.
_KEY_BYTES = {GREY: 2, RGB: 6}


@dataclass(frozen=True, slots=True)
class Png:
    """What is left of a file."""

    data: bytes
    orientation: int | None
    depth: int
    """Bits a sample."""
    colour: int
    """Colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    transparent: tuple[int, ...] | None
    """The one grey or RGB colour that is transparent, at the file's own depth."""


def read_chunks(data: bytes, *, most_parts: int) -> Png:
    """Reads the chunks of a PNG file up to its end.

    Raises:
        TooManyPartsError: more than ``most_parts`` chunks.
    """
    kept: list[tuple[int, int]] = []
    seen: set[bytes] = set()
    upright: int | None = None
    transparent: tuple[int, ...] | None = None
    at, parts, size = len(SIGNATURE), 0, len(data)
    depth, colour = (data[24], data[25]) if size > 25 else (0, 0)
    while at + 8 <= size:
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        parts += 1
        if parts > most_parts:
            raise TooManyPartsError(f"the PNG file has more than {most_parts:,} chunks; save it anew")
        if _decides_about_pixels(kind, seen):
            if kind != b"tRNS":
                kept.append((at, end))
            elif _is_sound(data, at, end) and (body := data[at + 8 : end - 4]):
                if colour == PALETTE:
                    kept.append((at, end))
                elif len(body) == _KEY_BYTES.get(colour):
                    kept.append((at, end))
                    # Only as many bits as samples have count, as in libpng.
                    values = (int.from_bytes(body[i : i + 2], "big") for i in range(0, len(body), 2))
                    transparent = tuple(value & ((1 << depth) - 1) for value in values)
        elif kind == b"eXIf" and upright is None and _is_sound(data, at, end):
            upright = orientation(data[at + 8 : end - 4])
        seen.add(kind)
        if kind == b"IEND":
            break
        at = end
    return Png(_joined(data, kept), upright, depth, colour, transparent)


def _decides_about_pixels(kind: bytes, seen: set[bytes]) -> bool:
    if kind == b"IDAT" or kind == b"IEND":
        return True
    # Once, and before the pixels: a decoder has to take no notice of others.
    return kind in (b"IHDR", b"PLTE", b"tRNS") and kind not in seen and b"IDAT" not in seen


def _is_sound(data: bytes, start: int, end: int) -> bool:
    """Whether the checksum of an optional chunk is right; decoders leave it out if it is not."""
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _joined(data: bytes, kept: list[tuple[int, int]]) -> bytes:
    """The kept parts of the file, without a copy if those are all up to its end, or to the end of the file."""
    runs = [(0, len(SIGNATURE))]
    for start, end in kept:
        if runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    if len(runs) == 1 and (data[runs[0][1] - 8 : runs[0][1] - 4] == b"IEND" or runs[0][1] >= len(data)):
        return data
    view = memoryview(data)
    return b"".join([view[start:end] for start, end in runs])
