"""Pictures over real sockets to the real LeNet-5: the same tests with the app under uvicorn and with every kind of
fleet."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
import pytest

from tests.pictures import DIGIT, photo
from tests.running import Service, uvicorn_service

# The first test with a fleet waits for its start, which takes long on a machine with a cold disk.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(
    scope="module",
    params=[
        "uvicorn",
        # Before the local fleet, whose processes would take cores of a small machine from these many.
        pytest.param("cluster", marks=pytest.mark.service, id="cluster-cpu"),
        pytest.param("local", marks=pytest.mark.service),
        pytest.param("solo", marks=pytest.mark.service),
        # The same behind Ray Serve: beside `local`, which has no fronts on a small machine.
        pytest.param("fronts", marks=[pytest.mark.service, pytest.mark.slow]),
    ],
)
def url(request: pytest.FixtureRequest, box_cache: Path) -> Iterator[str]:
    if request.param == "uvicorn":
        with uvicorn_service(box_cache) as address:
            yield address
        return
    service: Service = request.getfixturevalue(request.param)
    yield service.url
    # The service goes on for other tests; its log is checked again when it has stopped.
    assert "Traceback" not in service.log.read_text()


@pytest.fixture(scope="module")
def said_by_the_command_line(box_cache: Path) -> list[dict[str, Any]]:
    """What ``topfive classify`` prints for the digit, in a process of its own. All servers are compared with it."""
    run = subprocess.run(
        [sys.executable, "-m", "service.commands.main", "classify", "lenet5", str(DIGIT), "--json"],
        capture_output=True,
        check=True,
        timeout=100,
        env={**os.environ, "TOPFIVE_CACHE_DIR": str(box_cache)},
    )
    labels: list[dict[str, Any]] = json.loads(run.stdout)["top5"]
    return labels


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_the_readme_digit_comes_first(client: httpx.Client) -> None:
    answer = client.post("/classify?model=lenet5", content=DIGIT.read_bytes())
    assert answer.status_code == 200
    assert answer.json()["top5"][0]["label"] == "3"
    assert answer.json()["checkpoint"]["trained"] is True


def test_curl_with_a_form_content_type_is_a_picture(client: httpx.Client) -> None:
    answer = client.post(
        "/classify?model=lenet5",
        content=DIGIT.read_bytes(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200


def test_the_command_line_agrees_with_the_service(
    client: httpx.Client, said_by_the_command_line: list[dict[str, Any]]
) -> None:
    ours = said_by_the_command_line
    theirs = client.post("/classify?model=lenet5", content=DIGIT.read_bytes()).json()["top5"]
    assert [label["label"] for label in ours] == [label["label"] for label in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_an_ensemble_answers_with_the_mean_of_what_its_members_say_alone(client: httpx.Client) -> None:
    """With k=10 each member reports all of its ten classes."""
    names, image = ("googlenet", "inception_v2"), photo()
    answers = [client.post(f"/classify?model={name}&labels=cifar10&k=10", content=image).json() for name in names]
    alone = [{label["label"]: label["probability"] for label in answer["top5"]} for answer in answers]
    model = f"ensemble:{','.join(names)}"
    answer = client.post(f"/classify?model={model}&k=10&latency_ms=20000", content=image)
    assert (answer.status_code, answer.headers["X-Model-Served"]) == (200, model)
    body = answer.json()
    found = {label["label"]: label["probability"] for label in body["top5"]}
    assert found == pytest.approx({label: mean(one[label] for one in alone) for label in alone[0]}, abs=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert body["checkpoint"]["name"] == "ensemble:googlenet@cifar10,inception_v2@cifar10"
    assert [member["checkpoint"] for member in body["members"]] == [answer["checkpoint"] for answer in answers]
    assert body["routing"]["predicted_ms"] > 0


def bad_bodies() -> dict[str, tuple[bytes, int, str]]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    huge = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    jpeg = photo()
    return {
        "empty": (b"", 400, "no-picture"),
        "noise": (bytes(range(256)) * 20, 422, "undecodable"),
        "text": (b"this is no picture at all\n" * 10, 422, "undecodable"),
        "truncated JPEG": (jpeg[: len(jpeg) // 2], 422, "undecodable"),
        "PDF": (b"%PDF-1.7\n1 0 obj\n", 415, "unsupported-format"),
        "huge PNG": (huge, 422, "too-many-pixels"),
        "40 MB": (b"\xff" * 40_000_000, 413, "body-too-large"),
    }


@pytest.mark.parametrize("kind", list(bad_bodies()))
def test_bad_bytes_get_a_problem(client: httpx.Client, kind: str) -> None:
    content, status, slug = bad_bodies()[kind]
    answer = client.post("/classify?model=lenet5", content=content)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("query", "status"),
    [("model=nonesuch", 404), ("modle=lenet5", 400), ("model=lenet5&k=0", 400), ("model=googlenet@imagenet1k", 503)],
)
def test_bad_queries_get_a_problem(client: httpx.Client, query: str, status: int) -> None:
    answer = client.post(f"/classify?{query}", content=DIGIT.read_bytes())
    assert (answer.status_code, answer.json()["status"]) == (status, status)


def test_bad_json_and_multipart_get_a_problem(client: httpx.Client) -> None:
    assert client.post("/classify?model=lenet5", json={"image": "not base64!"}).status_code == 400
    form = {"content-type": "multipart/form-data; boundary=x"}
    field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    assert client.post("/classify?model=lenet5", content=field, headers=form).status_code == 400


def test_bad_pictures_do_not_touch_their_neighbours(client: httpx.Client) -> None:
    good, jpeg = DIGIT.read_bytes(), photo()
    bodies = [good] * 12
    for place, bad in ((2, jpeg[:3000]), (5, b"text"), (9, jpeg[:-400]), (14, b"more text")):
        bodies.insert(place, bad)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda body: client.post("/classify?model=lenet5", content=body).status_code, bodies))
    assert sorted(statuses) == [200] * 12 + [422] * 4
    assert [place for place, status in enumerate(statuses) if status == 422] == [2, 5, 9, 14]


def test_two_hundred_at_once_are_batched(url: str) -> None:
    """A batch has at most 16 pictures. The engine is faster with digits than this client, so that the best of several
    attempts counts."""
    for _ in range(12):
        answers = asyncio.run(_at_once(url, 200))
        assert {answer["top5"][0]["label"] for answer in answers} == {"3"}
        assert max(answer["batch_size"] for answer in answers) <= 16
        if (fullest := mean(answer["batch_size"] for answer in answers)) > 4:
            break
    assert fullest > 4
    (lone,) = asyncio.run(_at_once(url, 1))
    assert lone["batch_size"] == 1
    assert lone["timings_ms"]["queue"] < mean(answer["timings_ms"]["queue"] for answer in answers)


async def _at_once(url: str, count: int) -> list[dict[str, Any]]:
    """The answers to that many requests at once, over eight clients, since one client cannot send fast enough."""
    digit = DIGIT.read_bytes()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60)) for _ in range(8)]
        posts = (clients[i % 8].post("/classify?model=lenet5", content=digit) for i in range(count))
        return [answer.json() for answer in await asyncio.gather(*posts)]


def test_models_and_docs_are_served(client: httpx.Client) -> None:
    rows = {row["name"]: row["state"] for row in client.get("/models").json()["models"]}
    assert rows["lenet5@mnist"] == "ready"
    assert rows["googlenet@imagenet1k"] == "weights missing"
    assert client.get("/docs").status_code == 200
    assert client.get("/healthz").json() == {"status": "live"}
