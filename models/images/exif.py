"""The orientation in EXIF data, the one entry that decides what a picture looks like.

Pillow reads every entry, and each may claim all bytes of the data: 64 KB of EXIF then take 200 MB of memory. Here only
the orientation is read.
"""

from __future__ import annotations

import struct

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4


def orientation(exif: bytes) -> int | None:
    """Reads the EXIF orientation, 1 to 8; None if the data have none or are damaged.

    Args:
        exif: a TIFF header and its directories, with or without ``Exif\\0\\0`` before it.
    """
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (at,) = struct.unpack_from(order + "I", exif, 4)
    if at + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, at)
    entries = exif[at + 2 : at + 2 + 12 * count]
    # A directory that is cut off may still hold the orientation.
    entries = entries[: len(entries) - len(entries) % 12]
    for tag, kind, values, value in struct.iter_unpack(order + "HHI4s", entries):
        if tag == _ORIENTATION:
            if values != 1 or kind not in (_SHORT, _LONG):
                return None
            found: int = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), value)[0]
            return found if 1 <= found <= 8 else None
    return None
