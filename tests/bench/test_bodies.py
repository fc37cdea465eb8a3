"""What is sent is what its name says, and the times of an answer begin where they should."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import bodies
import httptools
import load
import pytest
from bodies import Answered, right, sent, show

ANSWER = b"HTTP/1.1 422 Unprocessable\r\nContent-Length: 2\r\n\r\nno"


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server for one connection. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def read(connection: socket.socket, size: int) -> None:
    """So many bytes, or all that come."""
    while size > 0 and (received := connection.recv(min(size, 1 << 16))):
        size -= len(received)


def test_the_first_time_begins_with_the_last_byte_and_the_second_with_the_connection() -> None:
    request = bytes(8 << 20)

    def answer(connection: socket.socket) -> None:
        time.sleep(0.2)  # the client cannot have sent everything
        read(connection, len(request))
        connection.sendall(ANSWER)

    with serving(answer) as port:
        found = sent(port, [request])
    assert found.status == "422"
    assert 0 <= found.after_ms < found.whole_ms - 150


def test_the_work_of_the_service_counts_after_the_last_byte() -> None:
    def answer(connection: socket.socket) -> None:
        read(connection, 3)
        time.sleep(0.2)
        # An answer may come in pieces.
        connection.sendall(ANSWER[:30])
        time.sleep(0.1)
        connection.sendall(ANSWER[30:])

    with serving(answer) as port:
        found = sent(port, [b"a", b"bc"])
    assert found.status == "422"
    assert 300 <= found.after_ms <= found.whole_ms


def test_the_client_stops_sending_when_the_answer_begins() -> None:
    def answer(connection: socket.socket) -> None:
        read(connection, 1 << 20)
        connection.sendall(ANSWER[:30])
        connection.settimeout(0.3)
        with suppress(TimeoutError):
            read(connection, 64 << 20)
            return  # it goes on
        connection.sendall(ANSWER[30:])

    with serving(answer) as port:
        assert sent(port, itertools.repeat(bytes(1 << 16))).status == "422"


@pytest.mark.parametrize("said", [b"", ANSWER[:20], ANSWER[:-1]])
def test_a_connection_that_ends_without_an_answer_is_lost(said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        read(connection, 1)
        connection.sendall(said)

    with serving(answer) as port:
        assert sent(port, [b"a"]).status == "lost"


def test_silence_is_lost_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_WITHIN_S", 0.2)
    with serving(lambda connection: read(connection, 1 << 30)) as port:
        assert sent(port, [b"ab"]).status == "lost"


def test_a_body_is_right_if_each_round_is() -> None:
    fine = Answered("413", 100.0, 900.0)
    assert right([fine, fine])
    for wrong in (Answered("413", 100.1, 101.0), Answered("lost", 1.0, 1.0), Answered("500", 1.0, 1.0)):
        assert not right([fine, wrong])
    line = show("deep", [Answered("400", 1.0, 20.0), Answered("400", 4.0, 30.0), Answered("413", 2.0, 70.0)])
    assert line.split() == ["deep", "2.0", "4.0", "30.0", "70.0", "400", "x2,", "413", "x1"]
    assert show("deep", [fine]).split() == ["deep", "100.0", "100.0", "900.0", "900.0", "413"]
    assert "!" in show("deep", [Answered("lost", 1.0, 20.0)])


def whole(name: str) -> tuple[bytes, bytes]:
    """The head and the body of a request that has an end."""
    head, _, body = b"".join(bodies.BODIES[name]()).partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("name", ["base64", "base64 in lines"])
def test_base64_is_a_picture_of_megabytes(name: str) -> None:
    _, body = whole(name)
    picture = base64.b64decode(json.loads(body)["image"])
    assert picture.startswith(load.DIGIT.read_bytes())
    assert len(picture) > 12_000_000


def test_bodies_are_as_large_as_their_names_say() -> None:
    _, body = whole("10,000 fields")
    assert body.count(b"form-data") == 10_000
    assert b"filename" not in body
    _, body = whole("10,000 files")
    assert body.count(b'filename="') == 10_000
    _, body = whole("gzip bomb")
    assert len(gzip.decompress(body)) == 500 << 20
    head, body = whole("1 MB of headers")
    assert head.count(b"\r\n") == 10_001
    assert len(head) == pytest.approx(1_000_000, rel=0.02)
    assert max(map(len, whole("header of 1 MB")[0].split(b"\r\n"))) > 1_000_000
    assert b"--boundary--" not in whole("form cut off")[1]


def test_chunks_are_framed_and_add_up() -> None:
    class Parsed:
        size = 0
        complete = False

        def on_body(self, body: bytes) -> None:
            self.size += len(body)

        def on_message_complete(self) -> None:
            self.complete = True

    parsed = Parsed()
    httptools.HttpRequestParser(parsed).feed_data(b"".join(bodies.BODIES["40 MB in chunks"]()))
    assert parsed.complete
    assert parsed.size == pytest.approx(40_000_000, rel=0.01)
