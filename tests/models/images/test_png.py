"""Metadata decide about which way up a picture is, and about nothing else, however damaged or large they are."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.images.exif import orientation
from models.images.pictures import UndecodableError, decode
from tests.picture_files import PALETTE, chunk, encode, exif, gif, parts, png, segment, with_segments

#: Slopes, so that JPEG files come close to it, with some noise, so that their data are of some length.
SCENE = (
    np.random.default_rng(3).integers(0, 12, (40, 56, 3)) + np.mgrid[0:160:4, 0:56].transpose(1, 2, 0)[..., [0, 1, 0]]
)
PICTURE = Image.fromarray(SCENE.astype(np.uint8))


def pixels(data: bytes, mode: Literal["RGB", "L"] = "RGB") -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, mode, max_pixels=10**6)).astype(np.int64)


TEXT = zlib.compress(b"node " * 600_000, 9)
CHUNKS = {
    "3 MB of compressed text": chunk(b"zTXt", b"workflow\0\0" + TEXT),
    "3 MB of compressed international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + TEXT),
    "3 MB of international text": chunk(b"iTXt", b"workflow\0\0\0\0\0" + b"node " * 600_000),
    "90 MB of text in 90 chunks": b"".join(
        chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(10**6), 9)) for i in range(90)
    ),
    "a profile of 3 MB": chunk(b"iCCP", b"profile\0\0" + TEXT),
    "a profile of unknown compression": chunk(b"iCCP", b"profile\0\7" + TEXT),
    "text of unknown compression": chunk(b"zTXt", b"workflow\0\7" + TEXT),
    "an empty profile": chunk(b"iCCP"),
    "a wrong checksum in text": chunk(b"tEXt", b"Comment\0x", checksum=1),
    "a wrong checksum in gamma": chunk(b"gAMA", b"\0\0\1\0", checksum=1),
    "gamma cut short": chunk(b"gAMA", b"\0"),
    "size in metres cut short": chunk(b"pHYs", b"\0"),
    "colours of white cut short": chunk(b"cHRM", b"\0" * 8),
    "an empty intent": chunk(b"sRGB"),
    "an animation cut short": chunk(b"acTL", b"\0"),
    "an animation of no frames": chunk(b"acTL", bytes(8)),
    "a frame out of turn": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", struct.pack(">I", 7) + bytes(22)),
    "private chunks": chunk(b"prVt", bytes(1000)) + chunk(b"abCd", checksum=0),
    "a palette of no use": chunk(b"PLTE", bytes(range(30))),
    "damaged EXIF data": chunk(b"eXIf", b"MM\0*" + b"\xff" * 20),
    "EXIF data in text, which browsers leave alone": chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      26\n" + exif(6).hex().encode() + b"\n")
    ),
    "an orientation in XMP, which browsers leave alone": chunk(
        b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    ),
    "EXIF data of a wrong checksum": chunk(b"eXIf", exif(6), checksum=1),
}


@pytest.mark.parametrize("place", ["before", "between", "after"])
@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_of_a_png_that_decide_nothing(name: str, place: str) -> None:
    assert np.array_equal(pixels(png(SCENE, **{place: CHUNKS[name]})), SCENE)
    indices = np.arange(40 * 56).reshape(40, 56, 1) % 200
    palette = np.random.default_rng(1).integers(0, 256, (200, 3))
    options: dict[str, Any] = {"before": chunk(b"PLTE", palette.astype(np.uint8).tobytes())}
    options[place] = options.get(place, b"") + CHUNKS[name]
    assert np.array_equal(pixels(png(indices, 8, PALETTE, **options)), palette[indices[..., 0]])


@pytest.mark.parametrize("lost", [4, 11, 12, 13, 16, 500])
def test_a_png_that_is_cut_behind_its_pixels(lost: int) -> None:
    data = png(SCENE, after=chunk(b"tEXt", b"Comment\0" + bytes(1000)))
    assert np.array_equal(pixels(data[:-lost]), SCENE)


def test_a_png_that_is_cut_in_its_pixels_is_refused() -> None:
    with pytest.raises(UndecodableError, match="truncated"):
        pixels(png(SCENE)[:-200])


def test_a_second_header_of_a_png_counts_for_nothing() -> None:
    other = chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    assert np.array_equal(pixels(png(SCENE, before=other)), SCENE)


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_exif_data_of_a_png_turn_it_wherever_they_lie(place: str) -> None:
    found = pixels(png(SCENE, **{place: chunk(b"eXIf", exif(6))}))
    assert np.array_equal(found, np.rot90(SCENE, -1))
    # Of two the first counts.
    found = pixels(png(SCENE, **{place: chunk(b"eXIf", exif(8)) + chunk(b"eXIf", exif(6))}))
    assert np.array_equal(found, np.rot90(SCENE, 1))


SEGMENTS = {
    "damaged EXIF data": segment(0xE1, b"Exif\0\0MM\0*" + b"\xff" * 20),
    "an empty EXIF segment": segment(0xE1, b"Exif\0\0"),
    "a damaged resource of Photoshop's": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\xff"),
    "a resource of Photoshop's that is too long": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\x7f\xff\xff\xff"),
    "a profile in pieces that do not fit": segment(0xE2, b"ICC_PROFILE\0\5\2" + bytes(100)),
    "a profile without a number": segment(0xE2, b"ICC_PROFILE\0"),
    "a profile of 1 MB": b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes((i, 20)) + bytes(60_000)) for i in range(1, 21)
    ),
    "JFIF cut short": segment(0xE0, b"JFIF\0"),
    "JFIF of five bytes": segment(0xE0, b"JFIF"),
    "Adobe cut short": segment(0xEE, b"Adobe"),
    "a list of pictures that is damaged": segment(0xE2, b"MPF\0" + b"MM\0*" + b"\xff" * 30),
    "FlashPix": segment(0xE2, b"FPXR\0" + bytes(30)),
    "comments": segment(0xFE, b"\xff\xd9\xff\xda") * 20,
    "an orientation in XMP, which browsers leave alone": segment(
        0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    ),
    "segments of all kinds": b"".join(segment(marker, bytes(60_000)) for marker in range(0xE1, 0xF0)),
    "a segment whose length is none": b"\xff\xe5\0\0" + b"\xff\xe6\0\1",
}


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"keep_rgb": True}], ids=["plain", "progressive", "RGB"]
)
@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_of_a_jpeg_that_decide_nothing(name: str, options: dict[str, Any]) -> None:
    plain = encode(PICTURE, "JPEG", **options)
    assert np.array_equal(pixels(with_segments(plain, SEGMENTS[name])), pixels(plain))
    assert np.abs(pixels(plain) - SCENE).mean() < 12


def test_the_segments_that_tell_the_colour_space_are_kept() -> None:
    """Adobe's says that the file holds RGB, which the names of its components say as well, if they are not changed."""
    rgb = encode(PICTURE, "JPEG", keep_rgb=True, quality=95)
    renamed = rgb.replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0").replace(
        b"\3R\0G\0B\0", b"\3\1\0\2\0\3\0"
    )
    assert renamed != rgb
    assert b"Adobe" in renamed
    for data in (renamed, with_segments(renamed, SEGMENTS["comments"])):
        assert np.abs(pixels(data) - SCENE).mean() < 5
    # JFIF's says that it holds YCbCr, whatever the names of its components.
    named = encode(PICTURE, "JPEG", subsampling=0, quality=95)
    named = named.replace(b"\1\x11\0\2\x11\1\3\x11\1", b"R\x11\0G\x11\1B\x11\1").replace(
        b"\3\1\0\2\x11\3\x11", b"\3R\0G\x11B\x11"
    )
    assert b"JFIF" in named
    assert b"R\x11\0G" in named
    for data in (named, with_segments(named, SEGMENTS["comments"])):
        assert np.abs(pixels(data) - SCENE).mean() < 5


@pytest.mark.parametrize("before", [b"", segment(0xE1, b"Exif\0\0"), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0")])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_data_of_a_jpeg_turn_it(order: str, kind: int, before: bytes) -> None:
    plain = encode(PICTURE, "JPEG")
    turned = with_segments(plain, before + segment(0xE1, b"Exif\0\0" + exif(6, order=order, kind=kind)))
    assert np.array_equal(pixels(turned), np.rot90(pixels(plain), -1))


def webp(**options: Any) -> bytes:
    """Lossless, with a header that has room for metadata."""
    return encode(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0" + exif(6), **options)


def test_chunks_of_a_webp_that_decide_nothing() -> None:
    whole = webp(icc_profile=bytes(500), xmp=b"<x/>" * 100)
    expected = np.rot90(SCENE, -1)
    assert np.array_equal(pixels(whole), expected)
    at = whole.index(b"EXIF")
    assert np.array_equal(pixels(whole[:at]), SCENE)
    for size in range(at, len(whole), 9):
        assert pixels(whole[:size]).size == SCENE.size
    damaged = {
        "a length that is too long": whole[: at + 4] + b"\xff\xff\xff\x7f" + whole[at + 8 :],
        "damaged EXIF data": whole[: at + 8] + b"\xff" * 30 + whole[at + 38 :],
        "a profile of another length": whole.replace(
            b"ICCP" + struct.pack("<I", 500), b"JUNK" + struct.pack("<I", 500)
        ),
    }
    for name, data in damaged.items():
        assert np.array_equal(np.sort(pixels(data), None), np.sort(SCENE, None)), name


def test_a_webp_that_is_cut_in_its_pixels_is_refused() -> None:
    for data in (webp()[:2000], encode(PICTURE, "WEBP")[:-200]):
        with pytest.raises(UndecodableError, match="truncated"):
            pixels(data)


def test_extensions_of_a_gif_that_decide_nothing() -> None:
    palette = np.random.default_rng(1).integers(0, 256, (128, 3), dtype=np.uint8)
    frame = np.random.default_rng(2).integers(0, 128, (20, 30), dtype=np.uint8)
    for before in (
        b"\x21\xfe" + b"".join(bytes((len(part),)) + part for part in parts(bytes(300_000), 255)) + b"\0",
        b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0",
        b"\x21\xff\x0bXMP DataXMP" + b"<x/>" * 100 + b"\1" + bytes(range(255, -1, -1)) + b"\0",
        b"\x21\xf9\1\0\0",
        b"\x21\x01\0",
    ):
        assert np.array_equal(pixels(gif((30, 20), frame, (0, 0), palette, before=before)), palette[frame])


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
