"""Camera RAW files that are TIFF files are told from other TIFF files of the same cameras."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from models.images.raw_kinds import raw_or_tiff

SHORT, LONG, BYTE, ASCII = 3, 4, 1, 2
SUBFILE, COMPRESSION, PHOTOMETRIC, MAKE, DNG = 0xFE, 0x103, 0x106, 0x10F, 0xC612


def tiff(make: str, *entries: tuple[int, int, int], order: str = "<") -> bytes:
    """A TIFF file of one directory: tag, type and value of each entry, and the maker's name."""
    text = make.encode() + b"\0"
    count = len(entries) + 1
    behind = 8 + 2 + 12 * count + 4
    body = struct.pack(order + "HHII", MAKE, ASCII, len(text), behind)
    for tag, kind, value in entries:
        packed = struct.pack(order + ("HH" if kind == SHORT else "I"), *((value, 0) if kind == SHORT else (value,)))
        body += struct.pack(order + "HHI", tag, kind, 1) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, count)
    return head + body + bytes(4) + text


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("make", "entries", "kind"),
    [
        ("NIKON CORPORATION", [(SUBFILE, LONG, 1)], "camera RAW (Nikon)"),
        ("SONY", [(SUBFILE, LONG, 1), (COMPRESSION, SHORT, 6)], "camera RAW (Sony)"),
        ("PENTAX Corporation", [(SUBFILE, LONG, 0), (COMPRESSION, SHORT, 65535)], "camera RAW (Pentax)"),
        ("RICOH IMAGING COMPANY, LTD.", [(PHOTOMETRIC, SHORT, 32803)], "camera RAW (Pentax)"),
        ("SAMSUNG", [(SUBFILE, LONG, 1)], "camera RAW (Samsung)"),
        ("Hasselblad", [(SUBFILE, LONG, 1)], "camera RAW (Hasselblad)"),
        ("Apple", [(SUBFILE, LONG, 1), (DNG, BYTE, 0x0401)], "camera RAW (DNG)"),
        ("NIKON CORPORATION", [(SUBFILE, LONG, 0), (COMPRESSION, SHORT, 1), (PHOTOMETRIC, SHORT, 2)], "TIFF"),
        ("Canon", [(COMPRESSION, SHORT, 5)], "TIFF"),
        ("a scanner", [(SUBFILE, LONG, 1)], "TIFF"),
    ],
)
def test_makers(make: str, entries: list[tuple[int, int, int]], kind: str, order: str) -> None:
    assert raw_or_tiff(tiff(make, *entries, order=order)) == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"II*\0\x10\0\0\0CR\2\0", "camera RAW (Canon CR2)"),
        (b"II\x1a\0\0\0HEAPCCDR", "camera RAW (Canon CRW)"),
        (b"IIU\0\x18\0\0\0", "camera RAW (Panasonic)"),
        (b"IIRO\x08\0\0\0", "camera RAW (Olympus)"),
        (b"\0MRM\0\1", "camera RAW (Minolta)"),
        (b"FOVb\0\0\2\0", "camera RAW (Sigma)"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"II*\0", "TIFF"),
        (b"MM\0*\xff\xff\xff\xff", "TIFF"),
        (b"II*\0\x08\0\0\0\xff\xff", "TIFF"),
        (b"IIxx", None),
        (b"", None),
    ],
)
def test_first_bytes(data: bytes, kind: str | None) -> None:
    assert raw_or_tiff(data) == kind


def test_a_tiff_of_pillows_is_a_tiff() -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "TIFF", tiffinfo={MAKE: "NIKON CORPORATION"})
    assert raw_or_tiff(out.getvalue()) == "TIFF"


@pytest.mark.parametrize("cut", range(8, 60))
def test_a_file_that_is_cut_is_named_all_the_same(cut: int) -> None:
    kind = raw_or_tiff(tiff("NIKON CORPORATION", (SUBFILE, LONG, 1))[:cut])
    assert kind in ("TIFF", "camera RAW (Nikon)")
