"""Queries, and the three kinds of body, whole and broken. Over fake engines."""

from __future__ import annotations

import base64
import json
import threading
import time
import tracemalloc
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from service.config.settings import Settings
from service.domain.errors import BadBodyError, BadParameterError, NoPictureError, OverloadedError
from service.domain.query import Query
from service.http import requests as bodies
from service.http.body_memory import BodyMemory, Room
from service.http.requests import Body, head_of, read_body, read_query
from service.http.schemas import NoQuery, UnloadQuery
from service.http.uploads import Upload
from tests.fakes import Fakes
from tests.pictures import picture
from tests.problems import problem


async def test_multipart_parts_with_a_file_name_count(fakes: Fakes) -> None:
    async with fakes.client() as client:
        one = await client.post(
            "/classify?model=lenet5", files={"whatever": ("d.png", picture(3))}, data={"note": "no file"}
        )
        assert one.json()["top5"][0]["label"] == "3"
        two = await client.post("/classify?model=lenet5", files=[("a", ("d.png", picture(d))) for d in (4, 5)])
    assert [entry["top5"][0]["label"] for entry in two.json()["results"]] == ["4", "5"]


async def test_bulk_entries_are_whole_answers_and_whole_problems_in_order(fakes: Fakes) -> None:
    good = [base64.b64encode(picture(digit)).decode() for digit in range(3)]
    images = [good[0], "!!!", good[1], base64.b64encode(b"text").decode(), good[2], ""]
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", json={"images": images})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [entry["status"] for entry in results] == [200, 400, 200, 422, 200, 400]
    assert [entry["top5"][0]["label"] for entry in results if entry["status"] == 200] == ["0", "1", "2"]
    assert results[1]["type"] == "/problems/bad-body"
    assert results[3]["type"] == "/problems/undecodable"
    assert results[5]["type"] == "/problems/no-picture"
    assert all("timings_ms" in entry for entry in results if entry["status"] == 200)


async def test_broken_multipart_and_missing_pictures_are_told_apart(fakes: Fakes) -> None:
    form = "multipart/form-data; boundary=xyz"
    async with fakes.client() as client:

        async def post(content: bytes, kind: str = form) -> httpx.Response:
            return await client.post("/classify?model=lenet5", content=content, headers={"content-type": kind})

        problem(await post(b"nonsense"), 400, "bad-body")
        problem(await post(b"nonsense", "multipart/form-data"), 400, "bad-body")
        problem(await post(b""), 400, "no-picture")
        field = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--xyz--\r\n'
        problem(await post(field), 400, "no-picture")
        empty = b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n\r\n--xyz--\r\n'
        problem(await post(empty), 400, "no-picture")
        many = [("a", (f"{i}.png", b"x")) for i in range(65)]
        problem(await client.post("/classify?model=lenet5", files=many), 400, "bad-body")


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(fakes: Fakes) -> None:
    fakes.settings = Settings(cache_dir=fakes.settings.cache_dir, max_body_mb=0.001)

    async def chunks() -> Any:
        for _ in range(30):
            yield b"x" * 100

    async with fakes.client() as client:
        # Exactly the limit: the bytes are read, and are not a picture.
        problem(await client.post("/classify?model=lenet5", content=b"x" * 1000), 422, "undecodable")
        problem(await client.post("/classify?model=lenet5", content=b"x" * 1001), 413, "body-too-large")
        problem(await client.post("/classify?model=lenet5", content=chunks()), 413, "body-too-large")
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200


async def test_an_empty_file_input_of_a_form_is_ignored(fakes: Fakes) -> None:
    form = "multipart/form-data; boundary=xyz"
    part = b'--xyz\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
    content = part % (b"a", b"a.png", picture(4)) + part % (b"b", b"", b"") + b"--xyz--\r\n"
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", content=content, headers={"content-type": form})
    assert answer.json()["top5"][0]["label"] == "4"


TEXT = base64.b64encode(picture(6)).decode()


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        "Application/JSON",
        "text/json",
        "application/vnd.api+json",
        "application/problem+json; a=b",
    ],
)
async def test_json_has_several_names(fakes: Fakes, kind: str) -> None:
    async with fakes.client() as client:
        content = json.dumps({"image": TEXT})
        answer = await client.post("/classify?model=lenet5", content=content, headers={"content-type": kind})
    assert answer.json()["top5"][0]["label"] == "6"


@pytest.mark.parametrize("kind", ["image/svg+json-not", "image/heif+json", "application/jsonp", "json", "text/plain"])
async def test_bodies_of_every_other_type_are_read_as_a_picture(fakes: Fakes, kind: str) -> None:
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", content=picture(6), headers={"content-type": kind})
    assert answer.json()["top5"][0]["label"] == "6"


async def test_64_pictures_may_come_in_every_form_and_65_in_none(fakes: Fakes) -> None:
    async with fakes.client() as client:
        for count in (64, 65):
            named = [("a", (f"{i}.png", picture(i % 10))) for i in range(count)]
            texts = [f"data:image/png;base64,{base64.b64encode(picture(i % 10)).decode()}" for i in range(count)]
            for answer in (
                await client.post("/classify?model=lenet5&k=1", files=named),
                await client.post("/classify?model=lenet5&k=1", json={"images": texts}),
            ):
                if count == 65:
                    problem(answer, 400, "bad-body")
                else:
                    labels = [entry["top5"][0]["label"] for entry in answer.json()["results"]]
                    assert labels == [str(i % 10) for i in range(64)]


FORM = "multipart/form-data; boundary=b"
LIMIT = 20_000_000


async def parsed(upload: Upload, kind: str, coding: str | None = None, limit: int = LIMIT) -> Body:
    """``read_body`` with enough memory, which it must give back but for the pictures."""
    room = Room(BodyMemory(10 * LIMIT))
    room.resize(upload.size)
    body = await read_body(upload, head_of(kind.encode(), (coding or "").encode()), room, limit)
    assert room.size <= max(64 * 1024, sum(len(found) for found in body.pictures if isinstance(found, bytes)))
    return body


HEAD = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
N = 2_000_000
HOSTILE = {
    "ones": ("application/json", b'{"images": [' + N // 2 * b"1," + b"1]}"),
    "empty strings": ("application/json", b'{"images": [' + N // 3 * b'"",' + b'""]}'),
    "short strings": ("application/json", b'{"images": [' + N // 5 * b'"ab",' + b'""]}'),
    "unknown members": ("application/json", b"{" + b",".join(b'"%d":1' % i for i in range(N // 10)) + b"}"),
    "members again": ("application/json", b"{" + N // 8 * b'"image":' + b"1}"),
    "nested": ("application/json", b'{"images": ' + N * b"["),
    "a number": ("application/json", b'{"image": ' + N * b"1" + b"}"),
    "a name": ("application/json", b'{"' + N * b"x" + b'": 1}'),
    "escapes": ("application/json", b'{"image": "' + N // 6 * b"\\u0041" + b'"}'),
    "spaces": ("application/json", N * b" "),
    "spaces in it": ("application/json", b'{"image": "' + N * b" " + b'"}'),
    "one picture": ("application/json", b'{"image": "' + N // 4 * b"AAAA" + b'"}'),
    "empty parts": (FORM, N // 5 * b"--b\r\n" + b"--b--"),
    "fields": (FORM, N // 60 * b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' + b"--b--"),
    "false boundaries": (FORM, HEAD + N // 6 * b"\r\n--bx" + b"\r\n--b--"),
    "line ends": (FORM, HEAD + N // 4 * b"\r\n--" + b"\r\n--b--"),
    "a header": (FORM, b"--b\r\nX: " + N * b"y" + b"\r\n\r\n--b--"),
    "headers": (FORM, b"--b\r\n" + N // 6 * b"X: y\r\n" + b"\r\n--b--"),
    "no boundary": (FORM, N * b"\n"),
    "base64": (FORM, HEAD[:-2] + b"Content-Transfer-Encoding: base64\r\n\r\n" + N * b"A" + b"\r\n--b--"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_body_takes_many_times_its_size_in_memory(name: str) -> None:
    kind, content = HOSTILE[name]
    upload = Upload([content], len(content), 0.0)
    tracemalloc.start()
    try:
        with suppress(BadBodyError, NoPictureError):
            await parsed(upload, kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Beside the body: a copy of its content, and the content decoded.
    assert peak < 2.5 * len(content)


@pytest.mark.parametrize("name", HOSTILE)
async def test_large_bodies_are_parsed_in_a_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop goes on with other requests meanwhile."""
    kind, content = HOSTILE[name]
    loop_thread, threads = threading.get_ident(), set()
    for function in ("_multipart", "_json"):
        work = getattr(bodies, function)

        def noted(*arguments: Any, work: Any = work, **named: Any) -> Any:
            threads.add(threading.get_ident())
            return work(*arguments, **named)

        monkeypatch.setattr(bodies, function, noted)
    with suppress(BadBodyError, NoPictureError):
        await parsed(Upload([content], len(content), 0.0), kind)
    assert threads
    assert loop_thread not in threads


@pytest.mark.parametrize(("parts", "beside"), [(15, False), (17, True)])
async def test_small_bodies_of_many_parts_are_parsed_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, parts: int, beside: bool
) -> None:
    content = b"".join([HEAD + b"x\r\n"] * parts) + b"--b--"
    ran: list[object] = []
    in_thread = bodies._in_thread
    monkeypatch.setattr(bodies, "_in_thread", lambda *work: ran.append(work) or in_thread(*work))
    assert len((await parsed(Upload([content], len(content), 0.0), FORM)).pictures) == parts
    assert bool(ran) is beside


async def test_the_charset_of_a_form_is_ignored(fakes: Fakes) -> None:
    """Python decodes punycode in quadratic time: 400 kB of it took seconds."""
    field = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    content = field % (b"a" * 5_000, b"a" * 400_000) + HEAD + picture(4) + b"\r\n--b--\r\n"
    took: dict[str, float] = {}
    async with fakes.client() as client:
        for charset in ("utf-8", "punycode", "utf-7", "idna", "no-such-charset"):
            headers = {"content-type": f"{FORM}; charset={charset}"}
            began = time.perf_counter()
            answer = await client.post("/classify?model=lenet5", content=content, headers=headers)
            took[charset] = time.perf_counter() - began
            assert answer.json()["top5"][0]["label"] == "4"
    assert max(took.values()) < 20 * (took["utf-8"] + 0.01)


@pytest.mark.parametrize(("chunks", "beside"), [(1, False), (4, False), (5, True)])
async def test_a_large_picture_in_many_chunks_is_joined_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, chunks: int, beside: bool
) -> None:
    ran: list[object] = []
    in_thread = bodies._in_thread
    monkeypatch.setattr(bodies, "_in_thread", lambda *work: ran.append(work) or in_thread(*work))
    parts = [bytes([number]) * (65_000 if chunks > 1 else 10**6) for number in range(chunks)]
    body = await parsed(Upload(parts, sum(map(len, parts)), 0.0), "image/png")
    assert body.pictures == [b"".join(parts)]
    assert bool(ran) is beside


@pytest.mark.parametrize(("spare", "beside"), [(1, False), (0, True)])
@pytest.mark.parametrize("kind", ["application/json", FORM])
async def test_bodies_of_64_kib_or_more_are_parsed_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, kind: str, spare: int, beside: bool
) -> None:
    ran: list[object] = []
    in_thread = bodies._in_thread
    monkeypatch.setattr(bodies, "_in_thread", lambda *work: ran.append(work) or in_thread(*work))
    before, after = (HEAD, b"\r\n--b--") if kind == FORM else (b'{"image": "', b'"}')
    size = 64 * 1024 - spare
    content = before + (size - len(before) - len(after)) // 4 * 4 * b"A" + after
    content += (size - len(content)) * (b" " if kind != FORM else b"\n")
    body = await parsed(Upload([content], len(content), 0.0), kind)
    assert (len(content), len(body.pictures), body.bulk) == (size, 1, False)
    assert bool(ran) is beside


async def test_two_files_are_bulk_even_if_one_is_empty() -> None:
    content = HEAD + b"x\r\n" + HEAD + b"\r\n--b--"
    assert await parsed(Upload([content], len(content), 0.0), FORM) == ([b"x", b""], True)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"k=0", "k=0: Input should be greater than or equal to 1"),
        (b"labels=imagenet", "labels=imagenet: unknown label set; known: imagenet1k, cifar10, mnist"),
        (b"latency_ms=nan", "latency_ms=nan: "),
        (b"modle=a", "unknown parameter 'modle'; known: model, labels, latency_ms, memory_mb, min_top1, strict, k"),
        (b"k=1&k=2&k=3", "k is given 3 times; give it once"),
        (b"k=", "k=: "),
        (b"model", "model=: "),
    ],
)
def test_a_bad_query_names_the_parameter_and_its_value(raw: bytes, says: str) -> None:
    with pytest.raises(BadParameterError) as raised:
        read_query(Query, raw)
    assert str(raised.value).startswith(says)


def test_a_path_without_parameters_says_that_there_are_none() -> None:
    assert read_query(NoQuery, b"") == NoQuery()
    with pytest.raises(BadParameterError, match="unknown parameter 'k'; known: none"):
        read_query(NoQuery, b"k=1")


def test_queries_are_percent_decoded_and_those_of_different_paths_kept_apart() -> None:
    query = read_query(Query, b"model=ensemble%3Aalexnet%2Czfnet&strict=false&latency_ms=1e3")
    assert query == Query(model="ensemble:alexnet,zfnet", strict=False, latency_ms=1000)
    assert read_query(Query, b"") == Query()
    assert read_query(UnloadQuery, b"") == UnloadQuery()


def test_a_pause_lets_other_threads_run_once_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    slept: list[float] = []
    monkeypatch.setattr(bodies, "time", SimpleNamespace(perf_counter=lambda: now[0], sleep=slept.append))
    pause = bodies._Breaks()
    for now[0] in (0.0002, 0.0004, 0.0005, 0.0008):
        pause()
    assert len(slept) == 2
    assert all(seconds > 0 for seconds in slept)


ENCODED = base64.b64encode(picture(4)).decode()


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "", "image/png"])
@pytest.mark.parametrize("before", [b"", b"\r\n ", b"\xef\xbb\xbf"])
async def test_json_is_known_by_its_start_under_any_type(fakes: Fakes, kind: str, before: bytes) -> None:
    """``fetch`` with a string sends text/plain, and ``curl -d`` a form."""
    content = before + json.dumps({"image": ENCODED}).encode()
    async with fakes.client() as client:
        answer = await client.post(
            "/classify?model=lenet5", content=content, headers={"content-type": kind} if kind else {}
        )
    assert answer.json()["top5"][0]["label"] == "4"


@pytest.mark.parametrize(
    ("content", "slug", "status"),
    [
        (b"{", "bad-body", 400),
        (b"  ", "undecodable", 422),
        (b"\xef\xbb\xbf", "undecodable", 422),
        (b"[1]", "unsupported-format", 415),
    ],
)
async def test_what_only_looks_like_json_is_told(fakes: Fakes, content: bytes, slug: str, status: int) -> None:
    async with fakes.client() as client:
        problem(await client.post("/classify?model=lenet5", content=content), status, slug)


@pytest.mark.parametrize(
    "kind", ["multipart/mixed", 'multipart/related; type="application/json"', "Multipart/Form-Data"]
)
async def test_relatives_of_forms_are_read(fakes: Fakes, kind: str) -> None:
    content = (
        b'--b\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{"name": "a"}\r\n'
        b"--b\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\n" + picture(4) + b"\r\n--b--\r\nepilogue"
    )
    async with fakes.client() as client:
        headers = {"content-type": f"{kind}; boundary=b"}
        answer = await client.post("/classify?model=lenet5", content=content, headers=headers)
    assert answer.json()["top5"][0]["label"] == "4"


async def test_a_body_whose_parsing_finds_no_memory_is_429(fakes: Fakes) -> None:
    """It has arrived, but its pieces, the whole and its pictures need three times as much."""
    memory = BodyMemory(8 * N)
    room = Room(memory)
    content = b'{"image": "' + N // 4 * b"AAAA" + b'"}'
    room.resize(len(content))
    others = Room(memory)
    others.resize(4 * N)
    with pytest.raises(OverloadedError):
        await read_body(Upload([content], len(content), 0.0), head_of(b"application/json"), room, LIMIT)
    others.free()
    body = await read_body(Upload([content], len(content), 0.0), head_of(b"application/json"), room, LIMIT)
    (found,) = body.pictures
    assert isinstance(found, bytes)
    assert memory.held == room.size == len(found)
