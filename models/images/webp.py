"""The chunks of a WebP file: colour profiles, EXIF data, XMP and later frames are removed before it is decoded.

libwebp refuses a file if the length of any chunk is wrong, even that of the EXIF data at its end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from models.images.errors import TooManyPartsError
from models.images.exif import orientation

_PICTURE = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_KEPT = _PICTURE | {b"VP8X", b"ANIM", b"ALPH"}


@dataclass(frozen=True, slots=True)
class WebP:
    """A WebP file with the chunks of its first picture alone, and its orientation."""

    data: bytes
    orientation: int | None


def canvas(data: bytes) -> tuple[int, int]:
    """Width and height by the header, before the decoder makes room for them; (0, 0) if the header is damaged."""
    kind, head = data[12:16], data[16:34]
    if kind == b"VP8X" and len(head) >= 14:
        return int.from_bytes(head[8:11], "little") + 1, int.from_bytes(head[11:14], "little") + 1
    if kind == b"VP8L" and len(head) >= 9:
        bits = int.from_bytes(head[5:9], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(head) >= 14:
        return int.from_bytes(head[10:12], "little") & 0x3FFF, int.from_bytes(head[12:14], "little") & 0x3FFF
    return 0, 0


def read_chunks(data: bytes, *, most_parts: int) -> WebP:
    """Reads the chunks of a WebP file.

    Raises:
        TooManyPartsError: more than ``most_parts`` chunks.
    """
    if data[12:16] != b"VP8X":
        return WebP(data, None)
    kept: list[memoryview] = []
    upright: int | None = None
    has_picture = False
    at, parts, view = 12, 0, memoryview(data)
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        parts += 1
        if parts > most_parts:
            raise TooManyPartsError(f"the WebP file has more than {most_parts:,} chunks; save it anew")
        if kind == b"EXIF" and upright is None:
            upright = orientation(data[at + 8 : at + 8 + length])
        elif not has_picture and kind in _KEPT:
            has_picture = kind in _PICTURE
            kept.append(view[at:end])
        at = end
    size = sum(map(len, kept)) + 4
    return WebP(b"".join([struct.pack("<4sI4s", b"RIFF", size, b"WEBP"), *kept]), upright)
