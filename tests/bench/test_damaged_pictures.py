"""Damaged pictures: of every format, and some of them readable still."""

from __future__ import annotations

import random
import zlib

import pytest
from damaged_pictures import corpus, damaged

from models.images.pictures import PictureError, decode

MANY = [damaged(random.Random(f"1 {number}")) for number in range(2500)]


def test_the_corpus_is_sound_and_has_every_format() -> None:
    for data in corpus():
        decode(data, "RGB", max_pixels=10**6)
    assert {data[:2] for data in corpus()} == {b"\xff\xd8", b"\x89P", b"RI", b"GI", b"BM"}


@pytest.mark.parametrize("magic", [b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM"])
def test_pictures_of_every_format_are_damaged_and_some_can_still_be_read(magic: bytes) -> None:
    pictures = {data for data in MANY if data.startswith(magic)} - set(corpus())
    read = sum(is_read(data) for data in pictures)
    assert len(pictures) > 60
    assert 0.1 < read / len(pictures) < 0.9


def is_read(data: bytes) -> bool:
    try:
        decode(data, "L", max_pixels=10**6)
    except PictureError:
        return False
    return True


def test_a_png_whose_chunks_were_changed_has_right_checksums() -> None:
    """Else decoders would look no further."""
    right = 0
    for data in MANY:
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data not in corpus():
            right += checksums_are_right(data)
    assert right > 30


def checksums_are_right(data: bytes) -> bool:
    at = 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        at = end
    return True
