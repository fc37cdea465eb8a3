"""The three kinds of body, whole and broken, over fake engines."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from service.settings import Settings
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


async def test_json_takes_base64_and_data_urls(fakes: Fakes) -> None:
    text = base64.b64encode(picture(6)).decode()
    folded = "\n".join(text[i : i + 20] for i in range(0, len(text), 20))
    async with fakes.client() as client:
        for image in (text, folded, f"data:image/png;base64,{text}"):
            answer = await client.post("/classify?model=lenet5", json={"image": image})
            assert answer.json()["top5"][0]["label"] == "6"
        many = await client.post("/classify?model=lenet5", json={"images": [text]})
    assert [entry["status"] for entry in many.json()["results"]] == [200]


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


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        ("{", "bad-body"),
        ("[]", "bad-body"),
        ("{}", "bad-body"),
        ('{"image": 3}', "bad-body"),
        ('{"image": "AAAA", "images": []}', "bad-body"),
        ('{"picture": "AAAA"}', "bad-body"),
        ('{"images": []}', "bad-body"),
        (json.dumps({"images": ["AAAA"] * 65}), "bad-body"),
        ('{"image": "%%%"}', "bad-body"),
        ('{"image": "data:image/png,AAAA"}', "bad-body"),
        ('{"image": ""}', "no-picture"),
        ("\xff\xfe", "bad-body"),
    ],
)
async def test_broken_json_is_told_apart(fakes: Fakes, content: str, slug: str) -> None:
    async with fakes.client() as client:
        answer = await client.post(
            "/classify?model=lenet5", content=content.encode("latin-1"), headers={"content-type": "application/json"}
        )
    problem(answer, 400, slug)


async def test_broken_multipart_is_told_apart(fakes: Fakes) -> None:
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
        problem(await client.post("/classify?model=lenet5", content=b"x" * 1001), 413, "body-too-large")
        problem(await client.post("/classify?model=lenet5", content=chunks()), 413, "body-too-large")
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200


async def test_an_empty_file_input_of_a_form_is_no_picture(fakes: Fakes) -> None:
    form = "multipart/form-data; boundary=xyz"
    part = b'--xyz\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
    content = part % (b"a", b"a.png", picture(4)) + part % (b"b", b"", b"") + b"--xyz--\r\n"
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", content=content, headers={"content-type": form})
    assert answer.json()["top5"][0]["label"] == "4"
