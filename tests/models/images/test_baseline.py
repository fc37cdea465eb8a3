"""Which files a hardware decoder may have: those that it and Pillow read alike, and no others."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.images.baseline import baseline
from models.images.pictures import decode
from tests.picture_files import SCENE, encode, exif, many_scans, scan_by_scan, segment, with_segments

PICTURE = Image.fromarray(SCENE.astype(np.uint8))
WIDTH, HEIGHT = PICTURE.size
LIMIT = WIDTH * HEIGHT
PLAIN = encode(PICTURE, "JPEG")
ADOBE = b"Adobe\0\x64" + bytes(4)


def named(names: bytes) -> bytes:
    """A colour JPEG without JFIF's segment, whose components have these names."""
    bare = PLAIN[:2] + PLAIN[20:]
    assert PLAIN[2:4] == b"\xff\xe0"
    frame, scan = bare.index(b"\xff\xc0"), bare.index(b"\xff\xda")
    changed = bytearray(bare)
    for number, name in enumerate(names):
        changed[frame + 10 + 3 * number] = name
        changed[scan + 5 + 2 * number] = name
    return bytes(changed)


@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
def test_an_ordinary_photograph_is_passed_on_as_it_is(subsampling: int) -> None:
    file = encode(PICTURE, "JPEG", subsampling=subsampling)
    assert baseline(file, max_pixels=LIMIT) == (file, (WIDTH, HEIGHT), None)


ORDINARY = {
    "optimised": encode(PICTURE, "JPEG", optimize=True),
    "restarts": encode(PICTURE, "JPEG", restart_marker_blocks=2),
    "without JFIF": named(b"\1\2\3"),
    "Adobe's YCbCr": with_segments(PLAIN, segment(0xEE, ADOBE + b"\1")),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_other_ordinary_files_are_passed_on(name: str) -> None:
    assert baseline(ORDINARY[name], max_pixels=LIMIT) is not None


UNUSUAL = {
    "nothing": b"",
    "PNG": encode(PICTURE),
    "grey": encode(PICTURE.convert("L"), "JPEG"),
    "CMYK": encode(PICTURE.convert("CMYK"), "JPEG"),
    "progressive": encode(PICTURE, "JPEG", progressive=True),
    "many scans": many_scans(PICTURE.convert("L"), 3),
    "a scan for each component": scan_by_scan(16, 0, start_of_frame=0xC0),
    "extended": PLAIN.replace(b"\xff\xc0", b"\xff\xc1"),
    "arithmetic": PLAIN.replace(b"\xff\xc0", b"\xff\xc9"),
    "components R, G, B": named(b"RGB"),
    "Adobe's RGB": with_segments(PLAIN, segment(0xEE, ADOBE + b"\0")),
    "4:1:1": PLAIN.replace(b"\1\x22\0", b"\1\x41\0"),
    "cut": PLAIN[: len(PLAIN) // 2],
    "no end": PLAIN[:-2],
    "the end of another picture": PLAIN[:-2] + PLAIN,
    "segments": with_segments(PLAIN, segment(0xFE) * 100),
    "no header": b"\xff\xd8" + b"\xff\xd9",
    "12 bits": PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    "no height": PLAIN.replace(bytes((0xFF, 0xC0, 0, 17, 8, 0, HEIGHT)), bytes((0xFF, 0xC0, 0, 17, 8, 0, 0))),
    "a short header": b"\xff\xd8" + segment(0xC0) + segment(0xDA) + b"\xff\xd9",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_every_other_file_is_left_to_pillow(name: str) -> None:
    assert UNUSUAL[name] != PLAIN
    assert baseline(UNUSUAL[name], max_pixels=LIMIT) is None


def test_too_many_pixels_are_left_to_pillow_which_refuses_them() -> None:
    assert baseline(PLAIN, max_pixels=LIMIT) is not None
    assert baseline(PLAIN, max_pixels=LIMIT - 1) is None


def test_metadata_and_what_follows_the_picture_are_removed_and_the_orientation_is_told() -> None:
    file = with_segments(PLAIN, segment(0xE1, b"Exif\0\0" + exif(6)) + segment(0xFE, b"comment")) + b"more" + PLAIN
    assert baseline(file, max_pixels=LIMIT) == (PLAIN, (WIDTH, HEIGHT), 6)


def test_pillow_sees_the_same_picture_in_what_is_passed_on(test_data: Path) -> None:
    found = 0
    for path in sorted((test_data / "photos").glob("*.jpg"))[:8]:
        file = path.read_bytes()
        ordinary = baseline(file, max_pixels=1 << 24)
        if ordinary is not None:
            found += 1
            stored = Image.open(io.BytesIO(ordinary.data))
            assert stored.size == ordinary.size
            assert stored.tobytes() == decode(file, "RGB", max_pixels=1 << 24).tobytes()
    assert found >= 7


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_raise_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(200):
        file = bytearray(PLAIN)
        for at in random.integers(0, 700, 3):
            file[at] = random.integers(256)
        found = baseline(bytes(file), max_pixels=LIMIT)
        assert found is None or found.size[0] * found.size[1] <= LIMIT
