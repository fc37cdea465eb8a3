"""The closed loop in Python, against a server that tells what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import load
import pytest
from closed_loop import closed_loop, request_to, status_of
from servers import Body

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


class Server(ThreadingHTTPServer):
    """Answers each request in parts, with the status that ``decide`` gives for its number; None closes instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.decide: Callable[[int], int | None] = lambda _number: 200
        self.seen: list[tuple[str, str, bytes]] = []
        self.callers: set[int] = set()
        self.at_once, self.most_at_once = 0, 0
        self.lock = threading.Lock()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}/classify?model=lenet5"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.at_once -= 1
            self.server.seen.append((self.path, self.headers["Content-Type"], body))
            self.server.callers.add(self.client_address[1])
            status = self.server.decide(len(self.server.seen))
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "200000")
        self.end_headers()
        for _ in range(4):
            self.wfile.write(b"." * 50_000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_an_answer_is_complete_when_its_last_byte_is_there() -> None:
    for end in range(len(ANSWER)):
        assert status_of(ANSWER[:end]) is None
    assert status_of(ANSWER) == 200
    assert status_of(ANSWER.replace(b"200 OK", b"429 No").replace(b"Content-L", b"content-l")) == 429


def test_an_answer_of_unknown_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="no Content-Length"):
        status_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello")


def test_a_request_has_the_query_the_type_and_the_body() -> None:
    assert request_to("http://127.0.0.1:81/a?b=c", b"xyz", "image/png") == (
        b"POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:81\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\nxyz"
    )
    assert request_to("http://127.0.0.1:81/", b"", "a").startswith(b"POST / HTTP/1.1\r\n")


def test_each_connection_posts_again_and_again_over_the_same_connection(server: Server) -> None:
    # More than a socket holds, so that it is sent in parts.
    body = bytes(range(256)) * 40_000
    rows = closed_loop(server.address, request_to(server.url, body, "image/png"), 3, 0.3)
    assert len(rows) == len(server.seen) > 3
    assert all(sent == ("/classify?model=lenet5", "image/png", body) for sent in server.seen)
    assert len(server.callers) == 3
    assert server.most_at_once <= 3
    assert {status for _, status, _ in rows} == {200}
    # As much was waited for as there was time: a caller is never idle. The last request of each began in time.
    assert all(offset <= 0.3 < offset + took for took, _, offset in sorted(rows, key=sum)[-3:])
    assert min(offset for _, _, offset in rows) == 0


def test_every_status_has_its_rows(server: Server) -> None:
    server.decide = lambda number: 429 if number % 2 else 200
    rows = closed_loop(server.address, request_to(server.url, b"picture", "image/png"), 1, 0.1)
    assert [status for _, status, _ in rows] == [429 if number % 2 else 200 for number in range(1, len(rows) + 1)]


def test_a_connection_that_the_server_closes_is_a_row_and_sends_no_more(server: Server) -> None:
    server.decide = lambda number: None if number == 2 else 200
    rows = closed_loop(server.address, request_to(server.url, b"picture", "image/png"), 1, 30)
    assert [status for _, status, _ in rows] == [200, 0]
    assert len(server.seen) == 2


def test_load_reads_what_the_script_prints(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"picture")
    rows = load.python_loop(server.url, file, Body(b"picture", "image/png"), 2, 0.1)
    assert len(rows) == len(server.seen)
    assert server.seen[0] == ("/classify?model=lenet5", "image/png", b"picture")
    assert {row["status-code"] for row in rows} == {"200"}
    assert all(float(row["response-time"]) > 0 and float(row["offset"]) >= 0 for row in rows)
