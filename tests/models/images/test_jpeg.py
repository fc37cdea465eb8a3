"""JPEG files: missing ends, segments that do not affect pixels, and orientations."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.images.jpeg import with_two_ends
from models.images.pictures import UndecodableError, decode
from tests.picture_files import (
    SCENE,
    encode,
    exif,
    scan_by_scan,
    scans,
    segment,
    with_segments,
)

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "a restart a row": {"restart_marker_rows": 1, "subsampling": 0},
    "progressive, restarts": {"progressive": True, "restart_marker_blocks": 5},
    "optimised": {"optimize": True, "quality": 50},
}


def picture(mode: str = "RGB") -> Image.Image:
    """Noise over a gradient, so that no two blocks are alike."""
    noise = np.random.default_rng(0).integers(0, 60, (56, 72, 4), dtype=np.uint8)
    noise += np.linspace(0, 190, 72).astype(np.uint8)[:, None]
    return Image.fromarray(noise[..., :3]).convert(mode) if mode != "CMYK" else Image.fromarray(noise, "CMYK")


def pixels(data: bytes, at_least: int | None = None) -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, "RGB", max_pixels=10**6, at_least=at_least)).astype(np.int64)


def test_a_progressive_file_without_its_last_scans_is_refused() -> None:
    """Cut between two scans, every scan that is there is whole."""
    whole = encode(picture(), "JPEG", progressive=True)
    found = scans(whole)
    assert len(found) == 10
    for _, end in found[:-1]:
        with pytest.raises(UndecodableError):
            pixels(whole[:end])
    assert pixels(whole[: found[-1][1]]).shape == (56, 72, 3)


def test_a_sequential_file_without_the_scan_of_a_component_is_refused() -> None:
    whole = scan_by_scan(16, 0)
    starts = [found.start() for found in re.finditer(b"\xff\xda", whole)]
    assert len(starts) == 3
    for start in starts[1:]:
        with pytest.raises(UndecodableError):
            pixels(whole[:start])
    assert np.array_equal(pixels(whole[:-2]), pixels(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_the_end_are_ignored(kind: str) -> None:
    whole = encode(picture(), "JPEG", **KINDS[kind])
    expected = pixels(whole)
    film = b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(5000)
    for more in (bytes(3000), film, whole, whole[: len(whole) // 2], b"\xff\xda" * 100):
        assert np.array_equal(pixels(whole + more), expected)


def test_a_tall_file_that_is_cut_far_below_its_first_rows_is_refused() -> None:
    """Rows are compared in parts, and all of them have to be equal."""
    noise = np.random.default_rng(2).integers(0, 256, (900, 24), dtype=np.uint8)
    whole = encode(Image.fromarray(noise), "JPEG")
    assert np.array_equal(pixels(whole[:-2]), pixels(whole))
    with pytest.raises(UndecodableError):
        pixels(whole[: len(whole) * 9 // 10])


def progressive_scans(*ranges: tuple[int, int, int]) -> bytes:
    """A grey progressive file without an end: of each scan, the first and last coefficient and the lowest bit."""
    frame = segment(0xC2, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0")
    headers = [segment(0xDA, bytes((1, 1, 0, first, last, bit))) + b"\x55" for first, last, bit in ranges]
    return b"\xff\xd8" + frame + b"".join(headers)


def test_every_coefficient_of_a_progressive_file_must_be_there_to_its_last_bit() -> None:
    def is_whole(*ranges: tuple[int, int, int]) -> bool:
        return with_two_ends(progressive_scans(*ranges), most_parts=100) is not None

    assert is_whole((0, 0, 0), (1, 63, 0))
    assert is_whole((0, 0, 0), (1, 63, 1), (1, 63, 0x10))
    assert not is_whole((0, 0, 0), (1, 62, 0))
    assert not is_whole((1, 63, 0))
    assert not is_whole((0, 0, 1), (1, 63, 0))
    assert not is_whole((0, 0, 0), (1, 63, 2), (1, 63, 0x21))


def test_a_second_picture_behind_one_without_an_end() -> None:
    whole = encode(picture(), "JPEG")
    assert np.array_equal(pixels(whole[:-2] + encode(Image.new("RGB", (9, 9)), "JPEG")), pixels(whole))
    with pytest.raises(UndecodableError):
        pixels(whole[:-200] + encode(Image.new("RGB", (9, 9)), "JPEG"))


def test_a_file_of_one_colour_may_be_cut_where_that_changes_nothing() -> None:
    """Every block repeats the one before, which is also what decoders put in the place of missing ones."""
    whole = encode(Image.new("L", (64, 64), 128), "JPEG", optimize=True)
    for size in range(len(whole) - 20, len(whole)):
        try:
            found = pixels(whole[:size])
        except UndecodableError:
            continue
        assert (found == 128).all()


PICTURE = Image.fromarray(SCENE.astype(np.uint8))


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
def test_metadata_segments_do_not_affect_pixels(name: str, options: dict[str, Any]) -> None:
    plain = encode(PICTURE, "JPEG", **options)
    assert np.array_equal(pixels(with_segments(plain, SEGMENTS[name])), pixels(plain))
    assert np.abs(pixels(plain) - SCENE).mean() < 12


def test_the_segments_that_name_the_colour_space_are_kept() -> None:
    """Without names of components that say RGB, only Adobe's segment does."""
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
def test_exif_data_turn_a_jpeg(order: str, kind: int, before: bytes) -> None:
    plain = encode(PICTURE, "JPEG")
    turned = with_segments(plain, before + segment(0xE1, b"Exif\0\0" + exif(6, order=order, kind=kind)))
    assert np.array_equal(pixels(turned), np.rot90(pixels(plain), -1))


def test_of_two_orientations_in_a_jpeg_the_first_counts() -> None:
    plain = encode(PICTURE, "JPEG")
    turned = with_segments(plain, b"".join(segment(0xE1, b"Exif\0\0" + exif(number)) for number in (8, 6)))
    assert np.array_equal(pixels(turned), np.rot90(pixels(plain), 1))


@pytest.mark.parametrize("at_least", [None, 20])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_its_end_marker_is_decoded(kind: str, mode: str, at_least: int | None) -> None:
    whole = encode(picture(mode), "JPEG", **KINDS[kind])
    assert whole.endswith(b"\xff\xd9")
    expected = pixels(whole, at_least)
    for padding in (b"", b"\xff", b"\0" * 3, b"\0" * 5000, b"\xff" * 5000, b"\0\xff" * 100):
        assert np.array_equal(pixels(whole[:-2] + padding, at_least), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_else_is_refused(kind: str, mode: str) -> None:
    """A file that lacks only bits without effect on any pixel is decoded."""
    whole = encode(picture(mode), "JPEG", **KINDS[kind])
    expected = pixels(whole)
    # Between restart markers a decoder loses nothing by a cut but what follows.
    restarts = [found.start() + place for found in re.finditer(rb"\xff[\xd0-\xd7]", whole) for place in range(-1, 4)]
    for size in (*restarts, *range(150, len(whole) - 40, 23), *range(len(whole) - 40, len(whole) - 2)):
        for fill in (b"", bytes(999), b"\xff" * 999):
            try:
                found = pixels(whole[:size] + fill)
            except UndecodableError:
                continue
            assert len(whole) - size <= 6, fill[:1]
            assert np.abs(found - expected).mean() <= 0.1, (size, fill[:1])


@pytest.mark.parametrize("last", [b"\0", b"\xff\0"])
def test_data_that_end_with_zeros_are_not_taken_for_padding(last: bytes) -> None:
    for seed in range(20_000):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        whole = encode(Image.fromarray(noise), "JPEG")
        if whole.endswith(last + b"\xff\xd9") and (last != b"\0" or whole[-4] != 0xFF):
            break
    assert np.array_equal(pixels(whole[:-2]), pixels(whole))
    assert np.array_equal(pixels(whole[:-2] + b"\xff"), pixels(whole))


def test_a_file_of_arithmetic_codes_needs_its_end() -> None:
    """Its decoder does not say that data are missing, so two ends would prove nothing."""
    huffman = encode(picture("RGB"), "JPEG")[:-2]
    assert with_two_ends(huffman, most_parts=99) is not None
    for marker in (b"\xff\xc9", b"\xff\xca"):
        assert with_two_ends(huffman.replace(b"\xff\xc0", marker, 1), most_parts=99) is None
