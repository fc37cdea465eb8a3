"""Requests that are a little wrong: the same from the same seed, of every kind, and damaged where they should be."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest
from mutations import Request, corpus, request

from models.images.pictures import PictureError, decode

MANY = [request(1, number) for number in range(2500)]


def test_a_seed_and_a_number_make_one_request() -> None:
    assert [request(1, number) for number in range(99)] == MANY[:99]
    assert sum(request(2, number) == MANY[number] for number in range(99)) < 3
    code = "import sys; sys.path.insert(0, sys.argv[1]); import mutations as m\n"
    code += "print([m.request(1, n).raw() for n in range(99)])"
    bench = Path(__file__).parents[2] / "bench"
    other = subprocess.run([sys.executable, "-c", code, bench], capture_output=True, check=True, text=True).stdout
    assert other.strip() == str([one.raw() for one in MANY[:99]])


def test_every_kind_of_request_is_made() -> None:
    kinds = Counter(one.kind for one in MANY)
    assert set(kinds) == {"picture", "multipart", "JSON", "encoded", "path", "damaged head"}
    assert min(kinds.values()) > 50
    assert kinds["picture"] > len(MANY) / 2
    assert {one.method for one in MANY} >= {"GET", "POST", "HEAD", "PUT", "OPTIONS"}


def test_the_corpus_is_sound_and_has_every_format() -> None:
    for data in corpus():
        decode(data, "RGB", max_pixels=10**6)
    assert {data[:2] for data in corpus()} == {b"\xff\xd8", b"\x89P", b"RI", b"GI", b"BM"}


@pytest.mark.parametrize("magic", [b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM"])
def test_pictures_of_every_format_are_damaged_and_some_can_still_be_read(magic: bytes) -> None:
    pictures = {one.body for one in MANY if one.kind == "picture" and one.body.startswith(magic)} - set(corpus())
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
    for one in MANY:
        if one.body.startswith(b"\x89PNG\r\n\x1a\n") and one.body not in corpus():
            right += checksums_are_right(one.body)
    assert right > 30


def checksums_are_right(data: bytes) -> bool:
    at = 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        at = end
    return True


def test_what_is_sent() -> None:
    made = Request("POST", "/classify", ((b"Content-Length", b"3"),), b"abc")
    assert made.is_http
    assert made.raw() == b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
    damaged = Request("POST", "/classify", (), b"abc", head=b"POST \0\r\n\r\n")
    assert not damaged.is_http
    assert damaged.raw() == b"POST \0\r\n\r\nabc"


def test_lengths_are_right_where_an_answer_is_due() -> None:
    for one in MANY:
        if one.is_http and one.body:
            headers = dict(one.headers)
            assert headers.get(b"Content-Length", b"%d" % len(one.body)) == b"%d" % len(one.body)
            assert (b"Content-Length" in headers) != (b"Transfer-Encoding" in headers)
