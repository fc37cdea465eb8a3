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


@pytest.mark.parametrize("data", [b"<svgfoo>", b"<html><svg></svg></html>", b"see <svg ", b"<!-- <svg >", b"<?xml"])
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
    ],
)
def test_the_error_has_the_right_article(name: str, words: str) -> None:
    assert words in str(refuse(UNSUPPORTED[name] + bytes(200)))


def test_a_brand_behind_the_first_box_is_ignored() -> None:
    """The box has a length of 16 bytes; the brand stands behind it."""
    assert known_kind(struct.pack(">I4s4sI", 16, b"ftyp", b"mif1", 0) + b"heic") == "HEIF or HEIC"
