"""Formats that are recognised but not decoded: each is named in the refusal."""

from __future__ import annotations

import struct
import time

import pytest

from models.images.pictures import (
    PictureError,
    UndecodableError,
    UnsupportedFormatError,
    decode,
    known_kind,
)
from tests.shown.scene import Case
from tests.shown.table import cases

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


def iso(major: bytes, *others: bytes) -> bytes:
    """The first box of a file in the ISO container, with its brands."""
    return struct.pack(">I4s4sI", 16 + 4 * len(others), b"ftyp", major, 0) + b"".join(others)


UNSUPPORTED = {
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "SVG": SVG,
    "SVG, after an XML prolog": b'<?xml version="1.0" encoding="UTF-8"?>\n' + SVG,
    "SVG, after comments": b"<!-- drawn > by hand --> <!-- <b> -->\n<!---->" + SVG,
    "SVG, after a DOCTYPE": b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd">\n' + SVG,
    "SVG, after entities": b'<!DOCTYPE svg [ <!ENTITY ns "http://a">\n<!ENTITY b "c"> ]>' + SVG,
    "SVG, after all of it": b'\xef\xbb\xbf \n<?xml version="1.0"?><!-- a --><!DOCTYPE svg>\n<!-- b -->' + SVG,
    "HEIC, of a general brand": iso(b"mif1", b"mif1", b"heic"),
    "HEIC, a sequence of 10 bits": iso(b"hevx", b"msf1"),
    "HEIC, of several layers": iso(b"heim"),
    "HEIC, whose own brand is unknown": iso(b"MiHE", b"mif1", b"miaf", b"heix"),
    "HEIC, in capitals": iso(b"HEIC"),
    "HEIF, of another codec": iso(b"vvic", b"mif1"),
    "HEIF, of no codec that is known": iso(b"mif1", b"abcd"),
    "AVIF, of a general brand": iso(b"mif1", b"miaf", b"MA1B", b"avif"),
    "AVIF, a sequence": iso(b"avis", b"avis", b"msf1", b"iso8"),
    "AVIF, a sequence of a general brand": iso(b"msf1", b"iso8", b"avis", b"avif"),
    "camera RAW": iso(b"crx ", b"crx ", b"isom"),
    "camera RAW, Canon's older": b"II*\x00\x10\x00\x00\x00CR\x02\x00",
    "camera RAW, Fujifilm's": b"FUJIFILMCCD-RAW 0201",
    "JPEG XL, in a container": b"\x00\x00\x00\x0cJXL \r\n\x87\n",
    "audio": iso(b"M4A ", b"mp42", b"isom"),
    "audio, WAV": b"RIFF\x24\x10\x00\x00WAVEfmt ",
    "video, of a telephone": iso(b"3gp4", b"isom"),
    "video, with sound": iso(b"M4V ", b"M4A ", b"mp42"),
    "video, QuickTime's oldest": b"\x00\x00\x00\x08wide\x00\x00\x10\x00mdat",
    "TIFF": b"II*\x00\x08\x00\x00\x00",
    "TIFF, big-endian": b"MM\x00*\x00\x00\x00\x08",
    "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
    "HEIC, a sequence": b"\x00\x00\x00\x18ftypmsf1\x00\x00\x00\x00",
    "AVIF": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1",
    "MP4": b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41",
    "QuickTime": b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  ",
    "Matroska": b"\x1a\x45\xdf\xa3\x01\x00\x00\x00\x00\x00\x00\x1f",
    "AVI": b"RIFF\x24\x10\x00\x00AVI LIST",
    "MPEG": b"\x00\x00\x01\xba\x44\x00",
    "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "JPEG XL": b"\xff\x0a\xfa\x7f\x01",
    "ZIP": b"PK\x03\x04\x14\x00",
    "ZIP, of nothing": b"PK\x05\x06",
    "Microsoft Word": b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml" + bytes(300) + b"PK\x03\x04word/document.xml",
    "Microsoft Excel": b"PK\x03\x04" + bytes(26) + b"xl/workbook.xml",
    "Microsoft PowerPoint": b"PK\x03\x04" + bytes(26) + b"ppt/presentation.xml",
    "OpenDocument": b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.text",
    "EPUB": b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/epub+zip",
    "older Microsoft Office": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "RTF": b"{\\rtf1\\ansi",
    "Windows icon": b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0",
    "Windows cursor": b"\0\0\2\0\1\0\x20\x20\0\0\5\0\5\0",
    "TGA": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 64, 48, 24, 0x20),
    "TGA, of runs": struct.pack("<BBBHHBHHHHBB", 7, 0, 10, 0, 0, 0, 0, 0, 64, 48, 32, 0x28),
    "TGA, of a palette": struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 256, 24, 0, 0, 64, 48, 8, 0),
    "TGA, of greys": struct.pack("<BBBHHBHHHHBB", 0, 0, 3, 0, 0, 0, 0, 0, 64, 48, 8, 0),
    "Photoshop": b"8BPS\0\1" + bytes(6),
    "GIMP": b"gimp xcf v011\0",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "PostScript, with a preview": b"\xc5\xd0\xd3\xc6\x20\0\0\0",
    "Windows metafile": b"\1\0\0\0\x88\0\0\0" + bytes(32) + b" EMF",
    "Windows metafile, placeable": b"\xd7\xcd\xc6\x9a\0\0",
    "DICOM": bytes(128) + b"DICM\2\0\0\0UL",
    "FITS": b"SIMPLE  =                    T / a comment",
    "Radiance HDR": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    "OpenEXR": b"\x76\x2f\x31\x01\2\0\0\0",
    "DDS": b"DDS \x7c\0\0\0",
    "KTX": b"\xabKTX 20\xbb\r\n\x1a\n",
    "QOI": b"qoif\0\0\0\x40\0\0\0\x40\3\0",
    "FLIF": b"FLIF\x34\x31",
    "BPG": b"BPG\xfb\x20",
    "macOS icon": b"icns\0\0\x10\0",
    "AppleDouble": b"\0\5\x16\7\0\2\0\0Mac OS X        ",
    "MNG": b"\x8aMNG\r\n\x1a\n",
    "JNG": b"\x8bJNG\r\n\x1a\n",
    "JBIG2": b"\x97JB2\r\n\x1a\n",
    "DjVu": b"AT&TFORM\0\0\0\0DJVU",
    "PCX": b"\x0a\5\1\x08",
    "SGI": b"\x01\xda\x01\x01",
    "Sun raster": b"\x59\xa6\x6a\x95",
    "XPM": b"/* XPM */\nstatic char",
    "farbfeld": b"farbfeld\0\0\0\1",
    "Netpbm": b"P6\n64 48\n255\n",
    "Netpbm, with a comment": b"P2\n# a comment\n4 4\n15\n",
    "Netpbm, PAM": b"P7\nWIDTH 4\nHEIGHT 4\n",
    "Netpbm, of floats": b"PF\n4 4\n-1.0\n",
    "Amiga": b"FORM\0\0\x10\0ILBMBMHD",
    "JPEG XR": b"II\xbc\x01",
    "NIfTI": struct.pack("<I", 348) + bytes(340) + b"n+1\0",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "NumPy": b"\x93NUMPY\1\0",
    "gzip": b"\x1f\x8b\x08\0",
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\0",
    "Zstandard": b"\x28\xb5\x2f\xfd",
    "7-Zip": b"7z\xbc\xaf\x27\x1c",
    "RAR": b"Rar!\x1a\7\1\0",
    "tar": b"photo.jpg".ljust(257, b"\0") + b"ustar\x0000",
    "audio, MP3": b"ID3\4\0\0",
    "audio, MP3 without a tag": b"\xff\xfb\x90\x64",
    "audio, AAC": b"\xff\xf1\x50\x80",
    "audio, FLAC": b"fLaC\0\0\0\x22",
    "audio, AIFF": b"FORM\0\0\x10\0AIFFCOMM",
    "audio, MIDI": b"MThd\0\0\0\6",
    "Flash": b"CWS\x0a",
    "animated Windows cursor": b"RIFF\x24\x10\0\0ACONanih",
    "font": b"wOF2\0\1\0\0",
    "program": b"\x7fELF\2\1\1",
    "SQLite": b"SQLite format 3\0",
    "property list": b"bplist00\xd1",
    "video, a transport stream": (b"\x47" + bytes(187)) * 4,
}


def refuse(data: bytes, *, max_pixels: int = 80_000_000) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode(data, "RGB", max_pixels=max_pixels)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_known_kinds_of_files_are_named(name: str) -> None:
    error = refuse(UNSUPPORTED[name] + bytes(200))
    assert isinstance(error, UnsupportedFormatError)
    assert name.split(",")[0] in str(error)
    assert "JPEG, PNG, WebP, GIF and BMP" in str(error)
    assert ("video" in str(error)) == (name.split(",")[0] in ("video", "MP4", "QuickTime", "Matroska", "AVI", "MPEG"))


@pytest.mark.parametrize("data", [b"<svgfoo>", b"see <svg ", b"<!-- <svg >", b"<?xml"])
def test_text_that_mentions_svg_is_not_taken_for_svg(data: bytes) -> None:
    assert known_kind(data) is None
    assert isinstance(refuse(data), UndecodableError)


@pytest.mark.parametrize(
    "part", [b"<!---->", b"<!-- -->\n", b" ", b"<?xml?> ", b"<!DOCTYPE a>", b"<!DOCTYPE []>", b"<!", b"<!--"]
)
def test_recognising_svg_does_not_take_exponential_time(part: bytes) -> None:
    """Twice as many parts take less than a hundred times as long. A pattern that backtracks would double with each."""

    def seconds(count: int) -> float:
        start = time.perf_counter()
        assert known_kind(part * count + b"x") is None
        return time.perf_counter() - start

    assert min(seconds(22) for _ in range(5)) < 100 * min(seconds(11) for _ in range(5))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PDF", "this is a PDF file"),
        ("SVG", "this is an SVG file"),
        ("AVIF", "this is an AVIF file"),
        ("audio", "this is an audio (MPEG-4) file"),
        ("video, with sound", "this is a video (MP4 or QuickTime) file"),
        ("EPUB", "this is an EPUB (ZIP) file"),
        ("RTF", "this is an RTF file"),
        ("Flash", "this is a Flash file"),
        ("OpenEXR", "this is an OpenEXR file"),
        ("older Microsoft Office", "this is an older Microsoft Office file"),
    ],
)
def test_the_error_has_the_right_article(name: str, words: str) -> None:
    assert words in str(refuse(UNSUPPORTED[name] + bytes(200)))


def test_a_brand_behind_the_first_box_is_ignored() -> None:
    """The box has a length of 16 bytes; the brand stands behind it."""
    assert known_kind(struct.pack(">I4s4sI", 16, b"ftyp", b"mif1", 0) + b"heic") == "HEIF or HEIC"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P6",
        b"P6 is a model of a plane",
        b"P8\n1 1",
        b"\0\0\1\0\0\0",
        b"\0\0\2\0",
        struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 0, 48, 24, 0),
        struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 64, 48, 25, 0),
        struct.pack("<BBBHHBHHHHBB", 0, 1, 2, 0, 0, 0, 0, 0, 64, 48, 24, 0),
        struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 1, 0, 0, 0, 0, 64, 48, 24, 0),
        b"RIFF\x24\x10\0\0XXXX",
        b"FORM\x24\x10\0\0XXXX",
        b"\xff\xfe\x41\0",
        bytes(range(256)),
    ],
)
def test_what_only_resembles_a_kind_is_not_named(data: bytes) -> None:
    assert known_kind(data) is None


@pytest.mark.parametrize("case", [case for case in cases() if len(case.data) < 9000], ids=lambda case: case.name)
def test_a_damaged_picture_is_not_called_another_kind(case: Case) -> None:
    """What viewers show has no other name, nor has it when it is cut or its end is damaged."""
    for data in (case.data, case.data[: len(case.data) // 2], case.data[: -len(case.data) // 3] + bytes(50)):
        assert known_kind(data) is None
