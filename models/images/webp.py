"""The chunks of a WebP file: colour profiles, EXIF data, XMP and later frames are removed before it is decoded.

libwebp refuses a file if the length of any chunk is wrong, even that of the EXIF data at its end, and that of the whole
file in its header.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from models.images.errors import TooManyPartsError
from models.images.exif import orientation

_PICTURE = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_KEPT = _PICTURE | {b"VP8X", b"ANIM", b"ALPH"}
#: The flag of an extended file that says that it has transparent pixels.
_ALPHA = 0x10


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
        return WebP(_simple(data), None)
    kept: list[bytes | memoryview] = []
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
            if kind == b"ANMF" and kept and not _covers(kept[0], view[at + 8 : end]):
                kept[0] = _with_alpha(kept[0])
            kept.append(view[at:end])
            if end == len(data) + 1 and length % 2:
                kept.append(b"\0")
        at = end
    return WebP(_file(kept), upright)


def _file(chunks: Sequence[bytes | memoryview]) -> bytes:
    size = sum(map(len, chunks)) + 4
    return b"".join([struct.pack("<4sI4s", b"RIFF", size, b"WEBP"), *chunks])


def _simple(data: bytes) -> bytes:
    """A file of one stream. Its own length and the byte of padding at its end are corrected, if all of the stream is
    there."""
    if len(data) < 20:
        return data
    whole, (length,) = *struct.unpack_from("<I", data, 4), struct.unpack_from("<I", data, 16)
    end = 20 + length + length % 2
    if end <= 8 + whole <= len(data) or 20 + length > len(data):
        return data
    return _file((memoryview(data)[12:end], bytes(max(0, end - len(data)))))


def _covers(extended: bytes | memoryview, frame: bytes | memoryview) -> bool:
    """Whether a frame of an animation covers its whole canvas: its place is 0 and 0, its size that of the canvas."""
    return bytes(frame[:12]) == bytes(6) + bytes(extended[12:18])


def _with_alpha(extended: bytes | memoryview) -> bytes:
    """The header of a file that has transparent pixels: those that its first frame leaves free, as browsers show."""
    return bytes(extended[:8]) + bytes((extended[8] | _ALPHA,)) + bytes(extended[9:])
