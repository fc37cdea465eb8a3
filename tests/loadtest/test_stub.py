"""The stub answers as the service does, and as badly as its options say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import httpx
import pytest

from loadtest._outcomes import read_outcome
from loadtest._pictures import pictures
from loadtest._requests import KINDS, Kind, requests_of
from loadtest._stub import Behaviour, Stub


@contextmanager
def fresh() -> Iterator[None]:
    Stub.began, Stub.connections, Stub.requests = None, 0, 0
    try:
        yield
    finally:
        Stub.began, Stub.connections, Stub.requests = None, 0, 0


@pytest.fixture(autouse=True)
def _stub_is_fresh() -> Iterator[None]:
    with fresh():
        yield


class Wire(asyncio.Transport):
    """Collects what the stub writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def answers(self) -> list[tuple[int, Any]]:
        found, rest = [], self.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = int(head.split(b"Content-Length: ")[1])
            found.append((int(head.split()[1]), json.loads(rest[:length])))
            rest = rest[length:]
        return found


def connected(**behaviour: Any) -> tuple[Stub, Wire]:
    stub, wire = Stub(Behaviour(**behaviour)), Wire()
    stub.connection_made(wire)
    return stub, wire


def raw(body: bytes, headers: str = "", path: str = "/classify") -> bytes:
    return f"POST {path} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", ["photographs", "digits"])
def test_every_request_of_the_generator_gets_the_answer_that_it_expects(kind: Kind, drawn: str) -> None:
    stub, wire = connected()
    for request in islice(requests_of(kind, pictures(drawn, 8), "googlenet", None, 8), 10):
        wire.written = b""
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        stub.data_received(raw(request.body, headers, request.path))
        ((status, document),) = wire.answers()
        outcome = read_outcome(request, status, json.dumps(document).encode())
        assert outcome.verdict == "answered", outcome
        assert len(outcome.pictures) == {"bulk": 8, "junk": 0}.get(kind, 1)


def test_requests_may_come_in_pieces_and_several_at_once() -> None:
    stub, wire = connected()
    data = raw(b"x" * 50 + b"\xff\xd9") * 2
    for number in range(0, len(data), 7):
        stub.data_received(data[number : number + 7])
    assert [status for status, _ in wire.answers()] == [200, 200]
    stub.data_received(data)
    assert [status for status, _ in wire.answers()] == [200] * 4


def test_one_in_so_many_requests_gets_the_status() -> None:
    stub, wire = connected(status=429, every=3)
    for _ in range(6):
        stub.data_received(raw(b"\xff\xd9"))
    assert [status for status, _ in wire.answers()] == [200, 200, 429] * 2
    assert wire.answers()[2][1]["type"] == "/problems/overloaded"


def test_the_list_of_models_has_the_one_that_was_asked_for() -> None:
    stub, wire = connected(labels="mnist", state="weights missing")
    stub.data_received(b"GET /models HTTP/1.1\r\n\r\n")
    stub.data_received(b"GET /elsewhere HTTP/1.1\r\n\r\n")
    (status, document), (elsewhere, _) = wire.answers()
    (row,) = document["models"]
    assert (status, elsewhere) == (200, 404)
    assert (row["name"], row["variant"], row["state"]) == ("lenet5@mnist", "lenet5", "weights missing")


def test_connections_are_counted() -> None:
    stub, wire = connected()
    connected()
    stub.data_received(b"GET /connections HTTP/1.1\r\n\r\n")
    assert wire.answers() == [(200, 2)]


def test_a_stall_delays_what_comes_in_it_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("loadtest._stub.time.monotonic", lambda: now[0])
    stub, _ = connected(delay_s=0.5, stall_at_s=2.0, stall_s=3.0)
    waits = {}
    for second in (0.0, 1.9, 2.0, 4.0, 4.9, 5.0, 9.0):
        now[0] = 100.0 + second
        waits[second] = round(stub._wait_s(), 6)
    assert waits == {0.0: 0.5, 1.9: 0.5, 2.0: 3.5, 4.0: 1.5, 4.9: 0.6, 5.0: 0.5, 9.0: 0.5}


async def test_a_delayed_answer_comes_later_over_a_socket() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(Behaviour(delay_s=0.01)), "127.0.0.1", 0)
    async with server, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/classify"
        response = await client.post(url, content=b"\xff\xd9")
    assert response.json()["model"] == "googlenet"
