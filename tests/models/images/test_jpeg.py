"""JPEG files that end too early: good if nothing but the end marker is missing, refused if pixels are."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.images.pictures import UndecodableError, decode
from tests.picture_files import encode, scan_by_scan, scans

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "a restart a row": {"restart_marker_rows": 1, "subsampling": 0},
    "progressive, restarts": {"progressive": True, "restart_marker_blocks": 5},
    "optimised": {"optimize": True, "quality": 50},
}


def picture(mode: str = "RGB") -> Image.Image:
    """Noise over a gradient: no two blocks are alike, the last ones neither."""
    noise = np.random.default_rng(0).integers(0, 60, (56, 72, 4), dtype=np.uint8)
    noise += np.linspace(0, 190, 72).astype(np.uint8)[:, None]
    return Image.fromarray(noise[..., :3]).convert(mode) if mode != "CMYK" else Image.fromarray(noise, "CMYK")


def pixels(data: bytes, at_least: int | None = None) -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, "RGB", max_pixels=10**6, at_least=at_least)).astype(np.int64)


@pytest.mark.parametrize("at_least", [None, 20])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_end_alone_is_missing(kind: str, mode: str, at_least: int | None) -> None:
    whole = encode(picture(mode), "JPEG", **KINDS[kind])
    assert whole.endswith(b"\xff\xd9")
    expected = pixels(whole, at_least)
    for padding in (b"", b"\xff", b"\0" * 3, b"\0" * 5000, b"\xff" * 5000, b"\0\xff" * 100):
        assert np.array_equal(pixels(whole[:-2] + padding, at_least), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_else_is_refused(kind: str, mode: str) -> None:
    """The last few bits may have no effect on any pixel: the file is good then."""
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


@pytest.mark.parametrize("last", [b"\0", b"\xff\0"])
def test_data_that_end_as_padding_does(last: bytes) -> None:
    for seed in range(20_000):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        whole = encode(Image.fromarray(noise), "JPEG")
        if whole.endswith(last + b"\xff\xd9") and (last != b"\0" or whole[-4] != 0xFF):
            break
    assert np.array_equal(pixels(whole[:-2]), pixels(whole))
    assert np.array_equal(pixels(whole[:-2] + b"\xff"), pixels(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_behind_the_end_does_not_count(kind: str) -> None:
    whole = encode(picture(), "JPEG", **KINDS[kind])
    expected = pixels(whole)
    film = b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(5000)
    for more in (bytes(3000), film, whole, whole[: len(whole) // 2], b"\xff\xda" * 100):
        assert np.array_equal(pixels(whole + more), expected)


def test_a_second_picture_behind_one_without_an_end() -> None:
    whole = encode(picture(), "JPEG")
    assert np.array_equal(pixels(whole[:-2] + encode(Image.new("RGB", (9, 9)), "JPEG")), pixels(whole))
    with pytest.raises(UndecodableError):
        pixels(whole[:-200] + encode(Image.new("RGB", (9, 9)), "JPEG"))


def test_a_file_of_one_colour_may_be_cut_where_that_changes_nothing() -> None:
    """Every block says "as before": what decoders make of the missing ones is what they were."""
    whole = encode(Image.new("L", (64, 64), 128), "JPEG", optimize=True)
    for size in range(len(whole) - 20, len(whole)):
        try:
            found = pixels(whole[:size])
        except UndecodableError:
            continue
        assert (found == 128).all()
