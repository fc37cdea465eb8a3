"""Callers from other machines and slow clients, at a whole service on all addresses behind HAProxy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.pictures import picture
from tests.problems import problem
from tests.running import Service

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def service(box_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(box_cache, "--host", "0.0.0.0", log=tmp_path_factory.mktemp("strangers") / "log.txt")
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def own_address() -> str:
    """An address of this machine that is not the loopback's: a caller from there counts as another machine."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return address.address
    pytest.skip("this machine has no address but loopback's")


@pytest.mark.parametrize("headers", [{}, {"x-forwarded-for": "127.0.0.1", "host": "localhost"}])
def test_only_this_machine_loads(service: Service, own_address: str, headers: dict[str, str]) -> None:
    near, far = service.url, f"http://{own_address}:{service.port}"
    assert httpx.post(f"{near}/models/lenet5/load", trust_env=False, timeout=60).status_code == 200
    for what in ("load", "unload?wait=true"):
        answer = httpx.post(f"{far}/models/lenet5/{what}", headers=headers, trust_env=False)
        document = problem(answer, 403, "forbidden")
        assert own_address in document["detail"]
    assert httpx.get(f"{near}/models/lenet5", trust_env=False).json()["resident"]
    answer = httpx.post(f"{far}/classify?model=lenet5", content=picture(), trust_env=False, timeout=60)
    assert answer.status_code == 200


def test_a_client_that_falls_silent_is_told_so(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        head = b"POST /classify?model=lenet5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
        connection.sendall(head)
        answer = b""
        while b"slow-body" not in answer and (part := connection.recv(65536)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/slow-body" in answer


def answer_to(service: Service, *pieces: bytes) -> bytes:
    """What comes back for these bytes: a problem, or all until the connection ends."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while b"/problems/" not in answer and (part := connection.recv(65536)):
            answer += part
    return answer


def test_slow_clients_do_not_hold_up_others(service: Service) -> None:
    """Two thousand connections that send their headers or bodies slowly, of the 4,096 that HAProxy may have."""
    head = b"POST /classify?model=lenet5 HTTP/1.1\r\nHost: localhost\r\n"
    starts = (
        b"",
        head,
        head + b"Content-Length: 20000000\r\n\r\n",
        head + b"Content-Length: 20000000\r\n\r\n" + 100_000 * b"x",
    )
    slow = [socket.create_connection(("127.0.0.1", service.port), timeout=60) for _ in range(2_000)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(starts[number % 4])
        url = f"{service.url}/classify?model=lenet5"
        statuses = [httpx.post(url, content=picture(), trust_env=False, timeout=60).status_code for _ in range(50)]
        assert statuses == 50 * [200]
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize(
    "request_line", ["GET /models", "POST /route", "GET /metrics", "POST /nothing", "PUT /classify"]
)
def test_no_other_path_reads_an_endless_body(service: Service, request_line: str) -> None:
    head = f"{request_line} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = answer_to(service, head, *(50 * [b"10000\r\n" + 65_536 * b"x" + b"\r\n"]))
    assert answer.split()[1] in (b"400", b"404", b"405")
    assert b"application/problem+json" in answer


def test_who_waits_to_be_asked_is_refused_before_sending(service: Service) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    for line, status in (
        (b"Content-Length: 500000000", b"413"),
        (b"Content-Length: 9\r\nContent-Encoding: br", b"415"),
    ):
        answer = answer_to(service, head + line + b"\r\n\r\n")
        assert answer.split()[1] == status


def test_headers_that_are_too_large_are_told_so(service: Service) -> None:
    for lines in (b"Cookie: " + 35_000 * b"x" + b"\r\n", b"".join(b"X-%d: 1\r\n" % number for number in range(150))):
        answer = answer_to(service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"/problems/headers-too-large" in answer
