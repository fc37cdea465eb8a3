"""Kinds of JPEG, PNG and BMP files that are not decoded: hardly a viewer shows them. Damage is another matter."""

from __future__ import annotations

#: Starts of frame of files that hold one picture in several sizes.
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ARITHMETIC_LOSSLESS, _JPEG_LS, _START_OF_SCAN, _HIERARCHY = 0xCB, 0xF7, 0xDA, 0xDE
#: How many segments are looked at.
_MOST_SEGMENTS = 200
#: How the names of these kinds end.
UNCOMMON = (" JPEG", " PNG", " BMP")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def uncommon_kind(data: bytes) -> str | None:
    """The name of a file of a common format in a kind that is not decoded; None for any other."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_kind(data)
    if data.startswith(_SIGNATURE):
        return "CgBI (Xcode's) PNG" if data[12:16] == b"CgBI" else None
    return _bmp_kind(data)


def _jpeg_kind(data: bytes) -> str | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if len(data) < at + 12 or data[at] != 0xFF:
            return None
        code = data[at + 1]
        if code == _JPEG_LS:
            return "JPEG-LS"
        if code in _HIERARCHICAL or code == _HIERARCHY:
            return "hierarchical JPEG"
        if code in _FRAMES:
            return _frame_kind(code, data[at + 4 : at + 10])
        if code == _START_OF_SCAN:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _frame_kind(code: int, frame: bytes) -> str | None:
    """The kind by the body of the start of frame: bits a sample, height, width, number of components."""
    bits, height, components = frame[0], int.from_bytes(frame[1:3], "big"), frame[5]
    if code == _ARITHMETIC_LOSSLESS:
        return "lossless arithmetic-coded JPEG"
    if bits in (12, 16):
        return f"{bits}-bit JPEG"
    if not height:
        return "height-less (DNL) JPEG"
    return f"{components}-component JPEG" if components == 2 or 5 <= components <= 8 else None


def _bmp_kind(data: bytes) -> str | None:
    if data.startswith(b"BA") and data[14:16] == b"BM":
        return "OS/2 array of BMP"
    if not data.startswith(b"BM") or len(data) < 34:
        return None
    length, bits, compression = (
        int.from_bytes(data[at : at + size], "little") for at, size in ((14, 4), (28, 2), (30, 4))
    )
    if length == 64 and (compression, bits) in ((3, 1), (4, 24)):
        return "OS/2-compressed BMP"
    if 40 <= length <= 124:
        if compression in (4, 5) and bits in (0, 24, 32):
            return f"{'JPEG' if compression == 4 else 'PNG'}-compressed (printers') BMP"
        if bits == 64 and compression in (0, 3):
            return "64-bit BMP"
        if compression in (11, 12, 13):
            return "CMYK BMP"
    return None
