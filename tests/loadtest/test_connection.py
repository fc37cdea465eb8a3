"""A user's connection against a server of bytes: what is sent, what is read, and what counts as no response."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from geventhttpclient.connectionpool import SSLConnectionPool
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from loadtest._connection import FAILURES, Connection, reason
from tests.running import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
WITHIN_S = 20.0


class Server:
    """Answers each request with the next of some bytes; b"" closes the connection instead."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = iter(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.connections = 0
        self.no_delay = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        answer: bytes | None = next(self._answers, None)
        while answer is not None:
            connection, _ = self._socket.accept()
            self.connections += 1
            connection.settimeout(WITHIN_S)
            with connection:
                while answer is not None and (request := self._read(connection)):
                    self.requests.append(request)
                    connection.sendall(answer)
                    was, answer = answer, next(self._answers, None)
                    if b"Content-Length" not in was:
                        break

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._socket.close()
        self._thread.join(WITHIN_S)


@contextmanager
def serving(*answers: bytes) -> Iterator[Server]:
    server = Server(*answers)
    try:
        yield server
    finally:
        server.close()


Connect = Callable[..., Connection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes connections that are closed after the test."""
    made: list[Connection] = []

    def make(host: str, authorization: str | None = None, timeout_s: float = WITHIN_S) -> Connection:
        made.append(Connection(host, authorization, timeout_s))
        return made[-1]

    yield make
    for connection in made:
        connection._pool.close()


def test_a_request_is_sent_whole_and_its_response_read(connect: Connect) -> None:
    body = bytes(range(256)) * 2000
    with serving(OK) as server:
        connection = connect(server.url)
        assert connection.post("/classify?model=a", body, {"Content-Type": "image/jpeg"}) == (200, b"hi")
    (request,) = server.requests
    head, _, sent = request.partition(b"\r\n\r\n")
    assert sent == body
    assert head.decode().split("\r\n") == [
        "POST /classify?model=a HTTP/1.1",
        f"Host: {server.url.removeprefix('http://')}",
        "User-Agent: topfive-loadtest",
        "Accept: */*",
        "Content-Type: image/jpeg",
        f"Content-Length: {len(body)}",
    ]


def test_the_connection_is_kept_and_opened_again_after_it_broke(connect: Connect) -> None:
    with serving(OK, OK, b"", OK) as server:
        connection = connect(server.url)
        assert [connection.post("/", b"", {})[0] for _ in range(2)] == [200, 200]
        assert server.connections == 1
        with pytest.raises(FAILURES) as caught:
            connection.post("/", b"", {})
        assert reason(caught.value) == "connection closed"
        assert connection.post("/", b"", {}) == (200, b"hi")
        assert server.connections == 2


def test_a_path_in_the_host_and_credentials_are_used(connect: Connect) -> None:
    with serving(OK) as server:
        address = server.url.removeprefix("http://")
        connect(f"http://user:secret@{address}/prefix/", "Basic abc").post("/classify", b"", {})
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "POST /prefix/classify HTTP/1.1"
    # Credentials are in the header of their own, not in Host.
    assert f"Host: {address}" in lines
    assert "Authorization: Basic abc" in lines


def test_errors_have_a_status_and_a_body_too(connect: Connect) -> None:
    with serving(b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nwait") as server:
        assert connect(server.url).post("/", b"", {}) == (429, b"wait")


def test_bytes_that_are_not_http_are_no_response(connect: Connect) -> None:
    with serving(b"SSH-2.0-OpenSSH_9.6\r\n") as server:
        with pytest.raises(FAILURES) as caught:
            connect(server.url).post("/", b"", {})
        assert reason(caught.value) == "not HTTP"


def test_a_closed_port_is_no_response(connect: Connect) -> None:
    with pytest.raises(FAILURES) as caught:
        connect(f"http://127.0.0.1:{free_port()}").post("/", b"", {})
    assert reason(caught.value) == "connection refused"


def test_a_server_that_says_nothing_times_out(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = connect(f"http://127.0.0.1:{silent.getsockname()[1]}", None, 0.05)
        with pytest.raises(FAILURES) as caught:
            connection.post("/", b"", {})
        assert reason(caught.value) == "timed out"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (TimeoutError("timed out after 4.2 s"), "timed out"),
        (ConnectionResetError(104, "reset"), "connection closed"),
        (BrokenPipeError(32, "pipe"), "connection closed"),
        (HTTPConnectionClosed("at 17"), "connection closed"),
        (HTTPParseError("bad byte 3"), "not HTTP"),
        (socket.gaierror(-2, "Name or service not known"), "no such host"),
        (OSError(113, "No route to host"), "No route to host"),
        (OSError(), "OSError"),
    ],
)
def test_reasons_are_the_same_words_each_time(error: Exception, text: str) -> None:
    assert reason(error) == text


def test_small_requests_do_not_wait_for_acknowledgements(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bytes of a body would otherwise be held back until the first are acknowledged."""
    found: list[Any] = []
    with serving(OK) as server:
        connection = connect(server.url)
        take: Callable[[], Any] = connection._pool.get_socket
        monkeypatch.setattr(connection._pool, "get_socket", lambda: found.append(take()) or found[-1])
        connection.post("/", b"", {})
        assert found[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize(
    ("host", "port", "is_tls"),
    [("http://there", 80, False), ("https://there", 443, True), ("https://there:8443", 8443, True)],
)
def test_a_host_without_a_port_has_that_of_its_scheme(connect: Connect, host: str, port: int, is_tls: bool) -> None:
    pool = connect(host)._pool
    assert (pool._connection_host, pool._connection_port) == ("there", port)
    assert isinstance(pool, SSLConnectionPool) == is_tls
