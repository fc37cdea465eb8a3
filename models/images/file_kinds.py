"""The names of file formats that are recognised but not decoded, for the error that the sender gets."""

from __future__ import annotations

import re

#: Brands in the first box (``ftyp``) of an ISO container, which name its contents: pictures, RAW files, sound, video.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF (a sequence of pictures)",
    b"avio": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevc": "HEIC (a sequence of pictures)",
    b"hevx": "HEIC (a sequence of pictures)",
    b"hevm": "HEIC (a sequence of pictures)",
    b"hevs": "HEIC (a sequence of pictures)",
    b"vvic": "HEIF (VVC)",
    b"vvis": "HEIF (VVC, a sequence of pictures)",
    b"evbi": "HEIF (EVC)",
    b"evmi": "HEIF (EVC)",
    b"evbs": "HEIF (EVC, a sequence of pictures)",
    b"evms": "HEIF (EVC, a sequence of pictures)",
    b"avci": "HEIF (AVC)",
    b"avcs": "HEIF (AVC, a sequence of pictures)",
    b"jpeg": "HEIF (JPEG)",
    b"jpgs": "HEIF (JPEG, a sequence of pictures)",
    b"j2ki": "HEIF (JPEG 2000)",
    b"j2is": "HEIF (JPEG 2000, a sequence of pictures)",
    b"jxl ": "JPEG XL",
    b"jp2 ": "JPEG 2000",
    b"jpx ": "JPEG 2000",
    b"jpm ": "JPEG 2000",
    b"jph ": "JPEG 2000",
    b"crx ": "camera RAW (Canon CR3)",
    b"m4a ": "audio (MPEG-4)",
    b"m4b ": "audio (MPEG-4)",
    b"m4p ": "audio (MPEG-4)",
    b"f4a ": "audio (MPEG-4)",
    b"f4b ": "audio (MPEG-4)",
}
#: Brands that any HEIF file may have; another of its brands names the codec.
_HEIF = frozenset({b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"1pic", b"tmap"})
_VIDEO = "video (MP4 or QuickTime)"
#: First boxes of QuickTime files without ``ftyp``.
_QUICKTIME = frozenset({b"moov", b"mdat", b"wide", b"pnot", b"skip", b"free"})
#: The bytes that identify a format, their offset in the file, and the format's name.
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"%PDF-", 0, "PDF"),
    (b"CR\x02", 8, "camera RAW (Canon CR2)"),
    (b"FUJIFILMCCD-RAW", 0, "camera RAW (Fujifilm)"),
    (b"IIU\x00", 0, "camera RAW (Panasonic)"),
    (b"IIRO", 0, "camera RAW (Olympus)"),
    (b"IIRS", 0, "camera RAW (Olympus)"),
    (b"MMOR", 0, "camera RAW (Olympus)"),
    (b"FOVb", 0, "camera RAW (Sigma)"),
    (b"II*\x00", 0, "TIFF"),
    (b"MM\x00*", 0, "TIFF"),
    (b"II+\x00", 0, "TIFF"),
    (b"MM\x00+", 0, "TIFF"),
    (b"II\xbc", 0, "JPEG XR"),
    (b"\x1a\x45\xdf\xa3", 0, "video (Matroska or WebM)"),
    (b"AVI ", 8, "video (AVI)"),
    (b"WAVE", 8, "audio (WAV)"),
    (b"\x00\x00\x01\xba", 0, "video (MPEG)"),
    (b"\x00\x00\x01\xb3", 0, "video (MPEG)"),
    (b"FLV\x01", 0, "video (Flash)"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "video (Windows Media)"),
    (b"OggS", 0, "video or audio (Ogg)"),
    (b"8BPS", 0, "Photoshop"),
    (b"\x00\x00\x00\x0cjP  ", 0, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", 0, "JPEG XL"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\x00\x00\x01\x00", 0, "Windows icon"),
    (b"PK\x03\x04", 0, "ZIP"),
)
# Each character before <svg matches in one way only. A pattern with two ways would try all combinations of them, which
# takes forever on a file of many comments.
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?xml[^>]*>|<!--(?:[^-]|-(?!->))*-->|<!DOCTYPE[^>\[]*(?:\[[^\]]*\]\s*)?>)*<svg[\s>]",
    re.IGNORECASE,
)


def known_kind(data: bytes) -> str | None:
    """The name of the file's format, if it is recognised but not decoded; else None."""
    if data[4:8] == b"ftyp":
        return _iso_kind(data)
    for magic, offset, kind in _MAGIC:
        if data.startswith(magic, offset):
            return kind
    if data[4:8] in _QUICKTIME:
        return _VIDEO
    return "SVG" if _SVG.match(data[:4096]) else None


def _iso_kind(data: bytes) -> str:
    """The format of a file in the ISO container, named by its major brand, or by another brand of a HEIF file."""
    length = min(int.from_bytes(data[:4], "big"), 1024)
    brands = [data[at : at + 4].lower() for at in (8, *range(16, length - 3, 4))]
    if brands[0] in _BRANDS:
        return _BRANDS[brands[0]]
    if _HEIF.isdisjoint(brands):
        return _VIDEO
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "HEIF or HEIC")
