"""The orientation in EXIF data."""

from __future__ import annotations

import struct

import pytest

from models.images.exif import orientation
from tests.picture_files import exif


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (exif(3), 3),
        (exif(8, order="<"), 8),
        (b"Exif\0\0" + exif(5), 5),
        (b"Exif\0\0Exif\0\0" + exif(5), 5),
        (exif(6, kind=4), 6),
        (exif(6, order="<", kind=4), 6),
        (exif(0), None),
        (exif(9), None),
        (exif(6, kind=7), None),
        (exif(6)[:-12], None),
        (exif(6)[:9], None),
        (exif(6)[:5], None),
        (b"", None),
        (b"XX\0*" + exif(6)[4:], None),
        (b"MM\0*\xff\xff\xff\xff" + exif(6)[8:], None),
        (b"MM\0*\0\0\0\x08\xff\xff" + exif(6)[10:], 6),
        (b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHII", 0x10F, 2, 99, 0) + exif(7, order="<")[10:], 7),
        (b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x112, 3, 2, 7), None),
        (b"II*\0" + struct.pack("<I", 30) + bytes(22) + exif(4, order="<")[8:], 4),
    ],
)
def test_the_orientation_in_exif_data(data: bytes, expected: int | None) -> None:
    assert orientation(data) == expected
