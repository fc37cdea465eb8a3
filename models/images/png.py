"""Removes the chunks of a PNG file that do not affect its pixels, before decoding.

Text, colour profiles and times may hold megabytes compressed to kilobytes, and Pillow refuses a file for damage in
them, or for more than 1 MB of text. The further frames of an animation are removed as well.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from models.images.errors import TooManyPartsError
from models.images.exif import orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3
#: The length in bytes of a transparent colour, by colour type.
_KEY_BYTES = {GREY: 2, RGB: 6}
#: How many bytes are decompressed at once for their checksum.
_AT_ONCE = 1 << 20


class Png(NamedTuple):
    """A PNG file without the chunks that do not affect pixels, and what those and the header say."""

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
        # The palette of any other colour type is a suggestion for screens of few colours.
        if _affects_pixels(kind, seen) and (kind != b"PLTE" or colour == PALETTE):
            if kind != b"tRNS":
                kept.append((at, end))
            elif _is_sound(data, at, end) and (body := data[at + 8 : end - 4]):
                if colour == PALETTE:
                    # Alphas before the palette are out of place, and ignored.
                    if b"PLTE" in seen:
                        kept.append((at, end))
                elif len(body) == _KEY_BYTES.get(colour):
                    kept.append((at, end))
                    # Bits beyond the file's depth are ignored, as in libpng.
                    values = (int.from_bytes(body[i : i + 2], "big") for i in range(0, len(body), 2))
                    transparent = tuple(value & ((1 << depth) - 1) for value in values)
        elif kind == b"eXIf" and upright is None and _is_sound(data, at, end):
            upright = orientation(data[at + 8 : end - 4])
        seen.add(kind)
        if kind == b"IEND":
            break
        at = end
    return Png(_joined(data, kept), upright, depth, colour, transparent)


def _affects_pixels(kind: bytes, seen: set[bytes]) -> bool:
    if kind == b"IDAT" or kind == b"IEND":
        return True
    # Only the first of each, and only before the pixels; decoders must ignore others.
    return kind in (b"IHDR", b"PLTE", b"tRNS") and kind not in seen and b"IDAT" not in seen


def _is_sound(data: bytes, start: int, end: int) -> bool:
    """Whether the checksum of an optional chunk is right; decoders ignore the chunk if it is not."""
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def with_right_checksum(png: bytes, *, most_bytes: int) -> bytes | None:
    """Repairs a file whose data end without the right checksum of their own (Adler-32), which viewers ignore. None if
    that is not what is wrong with it: its data are cut, or damaged, which the checksum of a chunk shows as well.

    Args:
        png: a file without the chunks that do not affect pixels.
        most_bytes: how many bytes the pixels may have; the work is bounded by them.
    """
    before, parts, after = len(SIGNATURE), [], len(png)
    at = before
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            if end > len(png) or not _is_sound(png, at, end):
                return None
            parts.append(memoryview(png)[at + 8 : end - 4])
        elif parts:
            after = at
            break
        else:
            before = end
        at = end
    data = b"".join(parts)
    # Without zlib's header, so that its checksum is not looked at.
    inflating, checksum, count = zlib.decompressobj(-zlib.MAX_WBITS), 1, 0
    rest = data[2:]
    try:
        while not inflating.eof and count <= most_bytes:
            pixels = inflating.decompress(rest, _AT_ONCE)
            rest = inflating.unconsumed_tail
            if not pixels and not rest:
                break
            checksum, count = zlib.adler32(pixels, checksum), count + len(pixels)
    except zlib.error:
        return None
    if not inflating.eof:
        return None
    data = data[: len(data) - len(inflating.unused_data)] + checksum.to_bytes(4, "big")
    kind = b"IDAT" + data
    chunk = len(data).to_bytes(4, "big") + kind + zlib.crc32(kind).to_bytes(4, "big")
    return png[:before] + chunk + png[after:]


def _joined(data: bytes, kept: list[tuple[int, int]]) -> bytes:
    """Joins the kept parts. Returns the file itself if they are all of it, up to its IEND chunk or its last byte."""
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
