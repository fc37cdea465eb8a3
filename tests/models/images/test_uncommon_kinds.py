"""Kinds of the decoded formats that no viewer shows are told from damaged files."""

from __future__ import annotations

import struct

import pytest

from models.images.pictures import UndecodableError, UnsupportedFormatError, decode
from tests.jpeg_files import END, START, TABLES, jpeg, jpeg_parts
from tests.picture_files import SIGNATURE, bmp, bmp_header, chunk, png, segment
from tests.shown.jpeg import JFIF
from tests.shown.scene import scene

PLANES = [scene()[..., at].astype(float) for at in range(3)]


def with_frame(marker: int = 0xC0, *, bits: int = 8, height: int = 45) -> bytes:
    made = jpeg_parts(PLANES)
    frame = bytes((0xFF, marker)) + made.frame[2:4] + bytes((bits,)) + height.to_bytes(2, "big") + made.frame[7:]
    return START + JFIF + made.quantisation + frame + TABLES + made.scans[0] + END


FRAME = b"\x08\0\x2d\0\x46\1\1\x11\0"
PIXELS = bytes(4 * 70 * 45)
KINDS = {
    "a 12-bit JPEG": with_frame(0xC1, bits=12),
    "a 16-bit JPEG": with_frame(0xC3, bits=16),
    "a JPEG-LS": START + JFIF + segment(0xF7, FRAME) + segment(0xDA, bytes(9)),
    "a hierarchical JPEG": with_frame(0xC5),
    "a hierarchical JPEG, by its first segment": START
    + segment(0xDE, b"\x08\0\x2d\0\x46\1\1\x11\0")
    + with_frame()[2:],
    "a lossless arithmetic-coded JPEG": with_frame(0xCB),
    "a height-less (DNL) JPEG": with_frame(height=0),
    "a 2-component JPEG": jpeg(PLANES[:2]),
    "a CgBI (Xcode's) PNG": SIGNATURE
    + chunk(b"CgBI", b"\x50\0\x20\2")
    + png(scene())[8:33]
    + chunk(b"IDAT", b"\x62\0"),
    "an OS/2-compressed BMP": bmp(bmp_header(70, 45, 24, 4, length=64), PIXELS),
    "an OS/2-compressed BMP, of Huffman codes": bmp(bmp_header(70, 45, 1, 3, length=64), PIXELS[:50], bytes(8)),
    "a JPEG-compressed (printers') BMP": bmp(bmp_header(70, 45, 0, 4), jpeg(PLANES)),
    "a PNG-compressed (printers') BMP": bmp(bmp_header(70, 45, 0, 5), png(scene())),
    "a 64-bit BMP": bmp(bmp_header(70, 45, 64), 2 * PIXELS),
    "a CMYK BMP": bmp(bmp_header(70, 45, 32, 11), PIXELS),
    "an OS/2 array of BMP": b"BA" + struct.pack("<IIHH", 40, 0, 0, 0) + bmp(bmp_header(70, 45, 24), PIXELS),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_are_named(name: str) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        decode(KINDS[name], "RGB", max_pixels=10**6)
    assert str(caught.value).startswith(f"this is {name.split(', ')[0]} file")


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3])
def test_damage_has_no_name(marker: int) -> None:
    """Kinds that are decoded, cut in the middle."""
    data = with_frame(marker)
    with pytest.raises(UndecodableError, match="truncated or damaged"):
        decode(data[: len(data) // 2], "RGB", max_pixels=10**6)


@pytest.mark.parametrize("bits", [0, 7, 9, 255])
def test_numbers_of_bits_that_no_file_has_are_damage(bits: int) -> None:
    with pytest.raises(UndecodableError):
        decode(with_frame(bits=bits), "RGB", max_pixels=10**6)
