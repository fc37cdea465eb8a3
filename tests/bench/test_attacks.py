"""The attacks' inputs are what they are said to be, and the figures of a run are counted right."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import math
import time

import attackers
import hostile
import pytest
from attacks import Answered, Phase, result
from PIL import Image


@pytest.mark.parametrize(
    ("made", "mode"), [(hostile.palette_png, "P"), (hostile.rgba_png, "RGBA"), (hostile.grey16_png, "I;16")]
)
def test_pictures_are_large_in_pixels_and_small_in_bytes(made: object, mode: str) -> None:
    file = made(600)  # type: ignore[operator]
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        assert (picture.size, picture.mode) == ((600, 600), mode)
    assert len(file) < 4000


def test_a_progressive_picture_has_the_scans_that_are_asked_for() -> None:
    file = hostile.progressive_jpeg(64, 40)
    assert file.count(b"\xff\xda") == 40
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        assert picture.getpixel((30, 30)) == pytest.approx((120, 130, 140), abs=3)
    assert len(file) - len(hostile.progressive_jpeg(64, 39)) < 200


def test_texts_unpack_to_megabytes() -> None:
    file = hostile.ztxt_png(texts=2, text_mb=1)
    assert file.count(b"zTXt") == 2
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        assert picture.size == (28, 28)
    assert len(file) < 4000


def test_bodies_are_what_their_headers_say() -> None:
    bulk = json.loads(hostile.bulk(b"picture"))
    assert [base64.b64decode(text) for text in bulk["images"]] == [b"picture"] * 64
    assert json.loads(hostile.wide_json(10))["images"] == [1] * 6
    assert json.loads(hostile.deep_json(8)) == {"images": [[[[]]]]}
    assert gzip.decompress(hostile.gzip_bomb(1)) == bytes(1 << 20)
    request = hostile.post(b"/classify", b"abc", b"X: y")
    head, _, body = request.partition(b"\r\n\r\n")
    assert (body, b"Content-Length: 3" in head, b"X: y" in head) == (b"abc", True, True)


async def test_an_attack_counts_its_answers_and_ends_in_time() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 422 Unprocessable\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        attack = attackers.Attack(port, time.monotonic() + 0.3)
        await asyncio.wait_for(attack.again_and_again(hostile.post(b"/", b""), 2), 10)
    assert attack.counts["422"] > 1
    assert set(attack.counts) == {"422"}
    assert len(attack.answered_ms) == attack.counts["422"]


def phases(attack: list[Answered]) -> dict[str, Phase]:
    usual = [Answered(network, 0.0, 200, 10.0) for network in ("lenet5", "googlenet") for _ in range(100)]
    return {"without": Phase(usual, 100.0), "attack": Phase(attack, 150.0), "control": Phase(usual, 100.0)}


def served(network: str, *took_ms: float, status: int = 200) -> list[Answered]:
    return [Answered(network, 0.0, status, took) for took in took_ms]


def test_an_attack_holds_if_no_request_is_lost_and_the_99th_percentile_at_most_doubles() -> None:
    fine = served("lenet5", *[10.0] * 98, 20.0, 900.0) + served("googlenet", *[15.0] * 100)
    found = result(phases(fine))
    assert found["held"]
    assert found["polite"]["lenet5"]["attack"]["p99_ratio"] == 2.0
    assert found["polite"]["googlenet"]["attack"]["p50_ratio"] == 1.5
    assert found["rss_mb"]["attack"] == 150.0
    assert not result(phases(fine + served("lenet5", 21.0, 21.0)))["held"]
    for status in (429, 0, -1):
        lost = result(phases(fine + served("lenet5", 1.0, status=status)))
        assert (lost["held"], lost["lost"]["attack"]) == (False, [status])
    assert result(phases(served("lenet5", 1.0)))["polite"]["googlenet"]["attack"]["p99_ms"] == math.inf
