"""Content codings against Python's own writers of them."""

from __future__ import annotations

import gzip
import random
import zlib

import httpx
import pytest

from service.config.settings import Settings
from service.domain.errors import BadBodyError, BodyTooLargeError
from service.http.encodings import coding_of, decoded
from tests.fakes import Fakes
from tests.pictures import picture
from tests.problems import problem

CONTENT = random.Random(1).randbytes(300_000) + bytes(700_000)


def raw_deflate(content: bytes) -> bytes:
    writer = zlib.compressobj(wbits=-15)
    return writer.compress(content) + writer.flush()


WRITERS = {"gzip": gzip.compress, "deflate": zlib.compress, "raw deflate": raw_deflate}


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1_000_000, 1_000, 7])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_others_write_is_undone(writer: str, size: int) -> None:
    content = CONTENT[290_000:400_000] if size == 7 else CONTENT
    coded = WRITERS[writer](content)
    assert decoded(pieces(coded, size), writer.split()[-1], 1_000_000) == content


@pytest.mark.parametrize("size", [1_000_000, 13])
def test_gzip_files_that_follow_each_other_are_one(size: int) -> None:
    coded = gzip.compress(b"first") + gzip.compress(b"") + gzip.compress(b"second")
    assert decoded(pieces(coded, size), "gzip", 100) == gzip.decompress(coded) == b"firstsecond"
    assert decoded(pieces(coded + bytes(500), size), "gzip", 100) == b"firstsecond"


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_cut_off_or_goes_on_is_refused(writer: str) -> None:
    coded, coding = WRITERS[writer](b"some content"), writer.split()[-1]
    for broken in (coded[:-1], coded[:3], coded + b"x", coded + b"\0x"):
        with pytest.raises(BadBodyError, match=coding):
            decoded([broken], coding, 1_000)
    with pytest.raises(BadBodyError, match="ends before"):
        decoded([], coding, 1_000)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_something_else_is_refused(coding: str) -> None:
    for content in (picture(), b"\xff\xff\xff\xff", b"text", b"x"):
        with pytest.raises(BadBodyError):
            decoded([content], coding, 1_000_000)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_bomb_is_undone_no_further_than_the_limit(writer: str) -> None:
    coded, sizes = WRITERS[writer](bytes(50_000_000)), list[int]()
    with pytest.raises(BodyTooLargeError, match="more than 3 MB"):
        decoded([coded], writer.split()[-1], 3_000_000, sizes.append)
    assert max(sizes) <= 3_000_000
    assert len(decoded([WRITERS[writer](bytes(3_000_000))], writer.split()[-1], 3_000_000)) == 3_000_000


def test_growth_may_be_refused() -> None:
    def full(size: int) -> None:
        if size > 500_000:
            raise MemoryError

    with pytest.raises(MemoryError):
        decoded([gzip.compress(bytes(1_000_000))], "gzip", 1_000_000, full)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("gzip", "gzip"),
        ("X-GZIP", "gzip"),
        ("deflate", "deflate"),
        ("identity", None),
        ("", None),
        ("identity, gzip", "gzip"),
    ],
)
def test_names_of_codings(header: str, coding: str | None) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", ["br", "zstd", "compress", "aws-chunked", "gzip, gzip", "deflate,gzip", "x" * 9_000])
async def test_other_codings_are_415_which_says_what_is_taken(fakes: Fakes, header: str) -> None:
    async with fakes.client() as client:
        headers = {"content-encoding": header}
        answer = await client.post("/classify?model=lenet5", content=picture(), headers=headers)
        document = problem(answer, 415, "unsupported-encoding")
        assert "gzip, deflate" in document["detail"]
        assert len(document["detail"]) < 300
        assert answer.headers["accept-encoding"] == "gzip, deflate, identity"
        # The body was not read.
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("writer", WRITERS)
async def test_every_kind_of_body_may_be_coded(fakes: Fakes, writer: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + picture(7) + b"\r\n--b--"
    bodies = {"image/png": picture(7), "multipart/form-data; boundary=b": part}
    async with fakes.client() as client:
        for kind, body in bodies.items():
            headers = {"content-type": kind, "content-encoding": writer.split()[-1]}
            answer = await client.post("/classify?model=lenet5", content=WRITERS[writer](body), headers=headers)
            assert answer.json()["top5"][0]["label"] == "7"
        empty = await client.post("/classify", content=b"", headers={"content-encoding": "gzip"})
        problem(empty, 400, "no-picture")


async def test_a_bomb_is_413_and_leaves_nothing_in_memory(fakes: Fakes) -> None:
    fakes.settings = Settings(cache_dir=fakes.settings.cache_dir, max_body_mb=1)
    async with (
        fakes.app() as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        headers = {"content-encoding": "gzip"}
        problem(
            await client.post("/classify", content=gzip.compress(bytes(10**7)), headers=headers), 413, "body-too-large"
        )
        answer = await client.post("/classify?model=lenet5", content=gzip.compress(bytes(900_000)), headers=headers)
        problem(answer, 422, "undecodable")
        assert app._classify._memory.held == 0  # type: ignore[attr-defined]
