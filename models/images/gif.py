"""The blocks of a GIF file before its first picture. Of these, only the graphic control affects the picture."""

from __future__ import annotations

from models.images.errors import TooManyPartsError

_EXTENSION, _GRAPHIC_CONTROL = 0x21, 0xF9
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


def _colours(flags: int) -> int:
    """The length in bytes of the global colour table, by the flags of the screen."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
