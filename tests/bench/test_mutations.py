"""Requests that are a little wrong: the same from the same seed, of every kind, and damaged where they should be."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from mutations import Request, request

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
