"""Camera RAW files, most of which are TIFF files: their first directory tells which.

A photograph that was developed and saved as TIFF names its camera too, so the maker alone does not decide.
"""

from __future__ import annotations

import struct

#: The first bytes of RAW files that are no TIFF files, their offset, and the maker.
_MAGIC = (
    (b"CR\x02", 8, "Canon CR2"),
    (b"HEAPCCDR", 6, "Canon CRW"),
    (b"FUJIFILMCCD-RAW", 0, "Fujifilm"),
    (b"IIU\x00", 0, "Panasonic"),
    (b"IIRO", 0, "Olympus"),
    (b"IIRS", 0, "Olympus"),
    (b"MMOR", 0, "Olympus"),
    (b"FOVb", 0, "Sigma"),
    (b"\x00MRM", 0, "Minolta"),
    (b"IIII", 8, "Phase One"),
    (b"ARRI", 0, "ARRI"),
)
_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
#: BigTIFF, for files above 4 GB.
_BIG_TIFF = (b"II+\x00", b"MM\x00+")
_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _DNG_VERSION = 0x00FE, 0x0103, 0x0106, 0x010F, 0xC612
_ASCII, _SHORT, _LONG = 2, 3, 4
#: Photometric interpretations of a sensor's samples.
_SENSOR = frozenset({32803, 34892})
#: Compressions of makers, which no program writes into a TIFF file.
_OF_MAKERS = frozenset({34713, 32767, 32769, 32770, 34892, 65000, 65535})
_MAKERS = {
    "NIKON": "Nikon",
    "SONY": "Sony",
    "PENTAX": "Pentax",
    "RICOH": "Pentax",
    "SAMSUNG": "Samsung",
    "CANON": "Canon",
    "HASSELBLAD": "Hasselblad",
    "LEICA": "Leica",
    "EPSON": "Epson",
    "EASTMAN KODAK": "Kodak",
    "KODAK": "Kodak",
    "MAMIYA": "Mamiya",
    "LEAF": "Leaf",
    "PHASE ONE": "Phase One",
    "PANASONIC": "Panasonic",
    "OLYMPUS": "Olympus",
    "FUJIFILM": "Fujifilm",
    "KONICA MINOLTA": "Minolta",
    "SEIKO EPSON": "Epson",
}


def raw_or_tiff(data: bytes) -> str | None:
    """The name of a camera RAW or TIFF file; None for any other."""
    for magic, offset, maker in _MAGIC:
        if data.startswith(magic, offset):
            return f"camera RAW ({maker})"
    if data[:4] in _BIG_TIFF:
        return "TIFF"
    order = _ORDERS.get(data[:4])
    if order is None:
        return None
    by = _maker(data, order)
    return f"camera RAW ({by})" if by else "TIFF"


def _maker(data: bytes, order: str) -> str | None:
    """The maker of the camera whose RAW file this is, by its first directory; None if it is an ordinary TIFF file."""
    (at,) = struct.unpack_from(order + "I", data.ljust(8, b"\0"), 4)
    if at + 2 > len(data):
        return None
    (count,) = struct.unpack_from(order + "H", data, at)
    entries = data[at + 2 : at + 2 + 12 * count]
    numbers, make = {}, ""
    for tag, kind, values, value in struct.iter_unpack(order + "HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _MAKE and kind == _ASCII and values > 4:
            (start,) = struct.unpack(order + "I", value)
            make = data[start : start + min(values, 40)].split(b"\0")[0].decode("latin-1").strip().upper()
        elif kind == _SHORT:
            numbers[tag] = struct.unpack_from(order + "H", value)[0]
        elif kind == _LONG:
            numbers[tag] = struct.unpack(order + "I", value)[0]
        elif tag == _DNG_VERSION:
            return "DNG"
    is_thumbnail = numbers.get(_SUBFILE_TYPE, 0) & 1
    if not is_thumbnail and numbers.get(_PHOTOMETRIC) not in _SENSOR and numbers.get(_COMPRESSION) not in _OF_MAKERS:
        return None
    return next((name for prefix, name in _MAKERS.items() if make.startswith(prefix)), None)
