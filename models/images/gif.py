"""The blocks of a GIF file before its first picture. Of these, only the graphic control affects the picture."""

from __future__ import annotations

import struct

from models.images.errors import TooManyPartsError

_EXTENSION, _GRAPHIC_CONTROL, _IMAGE = 0x21, 0xF9, 0x2C
_FEW_BLOCKS = 256
_DISPOSAL = 0b11100


def without_comments(data: bytes, *, most_parts: int) -> bytes:
    """Removes comments, application data and the like before the first picture.

    Raises:
        TooManyPartsError: more than ``most_parts`` blocks before the picture.
    """
    if len(data) < 13:
        return data
    at = start = 13 + _colours(data[10])
    control = b""
    parts = 0
    while at + 1 < len(data) and data[at] == _EXTENSION:
        extension = at
        at += 2
        parts += 1
        while at < len(data) and data[at]:
            at += 1 + data[at]
            parts += 1
            if parts > most_parts:
                break
        if parts > most_parts:
            raise TooManyPartsError(
                f"the GIF file has more than {most_parts:,} blocks before its picture; save it anew"
            )
        at += 1
        if data[extension + 1] == _GRAPHIC_CONTROL and at - extension == 8:
            # The disposal says how to clear the screen for the second picture. Pillow would act on it even before it
            # reads the first.
            control = (
                data[extension : extension + 3] + bytes((data[extension + 3] & ~_DISPOSAL,)) + data[extension + 4 : at]
            )
    if control != data[start:at]:
        return b"".join([data[:start], control, memoryview(data)[at:]])
    return data


def frame_size(data: bytes) -> tuple[int, int]:
    """Width and height of the screen and the first picture together, by the headers; those of the screen alone if more
    blocks are before the picture than a real file has."""
    if len(data) < 13:
        return 0, 0
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at, size = 13 + _colours(data[10]), len(data)
    within = False
    for _ in range(_FEW_BLOCKS):
        if at + 10 > size:
            break
        if within:
            # A block of an extension; an empty one ends it.
            within, at = data[at] > 0, at + 1 + data[at]
        elif data[at] == _EXTENSION:
            within, at = True, at + 2
        elif data[at] == _IMAGE:
            left, top, across, down = struct.unpack_from("<4H", data, at + 1)
            return max(width, left + across), max(height, top + down)
        else:
            break
    return width, height


def _colours(flags: int) -> int:
    """The length in bytes of the global colour table, by the flags of the screen."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
