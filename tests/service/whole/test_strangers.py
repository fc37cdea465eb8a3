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
