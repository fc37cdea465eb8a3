"""One connection, byte by byte: what strangers may do to it, with uvicorn on a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from service.http import protocol, server
from service.http.server import serving

#: 64 bytes of the picture that these tests send: all values, so that no parser can take them for text.
BODY = bytes(range(0, 256, 4))


class App:
    """Answers with what it was asked, after it has read the body; ``/unread`` does not read it, ``/held`` waits."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        body, more = b"", scope["path"] != "/unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/held":
            await self.go_on.wait()
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        text = json.dumps({"method": scope["method"], "headers": headers, "body": body.hex()}).encode()
        text *= 1_000_000 // len(text) if scope["path"] == "/large" else 1
        close = [(b"connection", b"close")] if scope["path"] == "/unread" else []
        length = (b"content-length", b"%d" % len(text))
        await send({"type": "http.response.start", "status": 200, "headers": [length, *close]})
        await send({"type": "http.response.body", "body": text})


class Client:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        """Sends pieces that the server receives one by one."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.001)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """The next answer: status, headers, and the JSON of its body."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), 20)
        return int(head[0].split()[1]), headers, json.loads(body)

    async def problem(self, status: int, slug: str) -> None:
        """Checks that the next answer is this problem, and that the connection ends with it."""
        found, headers, document = await self.answer()
        assert (found, document["type"], document["status"]) == (status, f"/problems/{slug}", status)
        assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
        assert await self.ended() == b""

    async def ended(self) -> bytes:
        """Waits for the end of the connection, and returns what comes before it."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20)
        except ConnectionResetError:
            return b""


Connect = Callable[[], Any]


@asynccontextmanager
async def served(app: App) -> AsyncIterator[Connect]:
    writers: list[asyncio.StreamWriter] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def connect() -> Client:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writers.append(writer)
            return Client(reader, writer)

        async with serving(app, [listener]):
            try:
                yield connect
            finally:
                app.go_on.set()
                for writer in writers:
                    writer.close()


def request(path: str = "/", *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have a fifth of a second, not ten."""
    monkeypatch.setattr(protocol, "_CHECK_EVERY_S", 0.01)
    for name in ("HEADERS_S", "_UNREAD_S", "_PAUSE_S"):
        monkeypatch.setattr(protocol, name, 0.2)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("start", [b"P", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: "])
async def test_headers_that_do_not_arrive_are_told_so(start: bytes) -> None:
    async with served(App()) as connect:
        slow = await connect()
        await slow.send(start)
        await slow.problem(408, "slow-request")
        # The same on a connection that has been used.
        used = await connect()
        await used.send(request(method="GET"))
        assert (await used.answer())[0] == 200
        await used.send(start)
        await used.problem(408, "slow-request")


@pytest.mark.usefixtures("quick")
async def test_more_bytes_of_the_headers_do_not_gain_time() -> None:
    app = App()
    async with served(app) as connect:
        slow = await connect()
        await slow.send(b"GET / HTTP/1.1\r\n")

        async def dribble() -> None:
            while True:
                await slow.send(b"X-A: b\r\n")
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        await slow.problem(408, "slow-request")
        dribbling.cancel()
        assert app.asked == []


@pytest.mark.usefixtures("quick")
async def test_a_connection_without_a_request_ends_without_an_answer() -> None:
    async with served(App()) as connect:
        assert await (await connect()).ended() == b""


@pytest.mark.usefixtures("quick")
async def test_requests_that_are_answered_have_time() -> None:
    """What waits for its answer does not wait for the client."""
    app = App()
    async with served(app) as connect:
        held = await connect()
        await held.send(request("/held", f"Content-Length: {len(BODY)}"), BODY)
        await asyncio.sleep(0.5)
        app.go_on.set()
        status, _, said = await held.answer()
        assert (status, bytes.fromhex(said["body"])) == (200, BODY)
        # A connection may be idle between requests for longer than a request's headers may take.
        await asyncio.sleep(0.5)
        await held.send(request(method="GET"))
        assert (await held.answer())[0] == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET nonsense HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_so(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    async with served(app) as connect:
        stranger = await connect()
        await stranger.send(garbage)
        await stranger.problem(400, "bad-request")
        assert app.asked == []
    assert caplog.text == "", "strangers must not be able to fill the log"


async def test_a_body_whose_framing_breaks_is_told_so() -> None:
    app = App()
    async with served(app) as connect:
        broken = await connect()
        await broken.send(request("/", "Transfer-Encoding: chunked"), b"2\r\nab\r\nzz\r\n")
        await broken.problem(400, "bad-request")
        assert (app.asked, app.gone) == (["/"], 1)


async def test_requests_before_a_broken_one_are_answered_and_nothing_else_is() -> None:
    app = App()
    async with served(app) as connect:
        client = await connect()
        await client.send(request("/held", method="GET"), b"nonsense\r\n\r\n")
        assert app.asked == ["/held"]
        app.go_on.set()
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.ended() == b""


LARGE = "x" * 33_000


@pytest.mark.parametrize(
    "pieces",
    [
        [request("/?" + LARGE)],
        [request("/", "Cookie: " + LARGE)],
        [request("/", *(f"X-{number}: {LARGE[:500]}" for number in range(80)))],
        [request("/", *(f"X-{number}: a" for number in range(200)))],
        [b"GET / HTTP/1.1\r\n", *(b"X-A: " + b"y" * 8_000 + b"\r\n" for _ in range(5))],
        [b"GET /", *(b"y" * 10_000 for _ in range(5))],
    ],
    ids=["query", "cookie", "kilobytes", "lines", "piece by piece", "an endless line"],
)
async def test_headers_have_limits(pieces: list[bytes]) -> None:
    app = App()
    async with served(app) as connect:
        client = await connect()
        await client.send(*pieces)
        await client.problem(431, "headers-too-large")
        assert app.asked == []


async def test_headers_within_the_limits_are_taken() -> None:
    async with served(App()) as connect:
        client = await connect()
        lines = [f"X-{number}: {LARGE[:150]}" for number in range(100)]
        await client.send(request("/?" + LARGE[:10_000], *lines))
        status, _, said = await client.answer()
        assert (status, len(said["headers"])) == (200, 101)
        # The next request on the connection has limits of its own, and a large body is not a header.
        await client.send(request("/?" + LARGE[:20_000], *lines[:10], "Content-Length: 70000"), b"z" * 70_000)
        assert (await client.answer())[0] == 200
        head = request("/?" + LARGE[:20_000], method="GET")
        for _ in range(4):
            await client.send(head[:15_000], head[15_000:])
            assert (await client.answer())[0] == 200


OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
CHUNKED = b"20\r\n" + BODY[:32] + b"\r\n20\r\n" + BODY[32:] + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [request("/", *OFFER, "Content-Length: 64") + BODY],
        [request("/", *OFFER, "Content-Length: 64"), BODY[:10], BODY[10:]],
        [request("/", *OFFER, "Transfer-Encoding: chunked") + CHUNKED],
        [request("/", *OFFER, "Transfer-Encoding: chunked"), CHUNKED[:50], CHUNKED[50:]],
        [bytes([byte]) for byte in request("/", *OFFER, "Content-Length: 64") + BODY],
    ],
    ids=["at once", "in pieces", "chunked", "chunked in pieces", "byte by byte"],
)
async def test_an_offer_of_http_2_is_ignored_and_the_body_is_not_lost(pieces: list[bytes]) -> None:
    app = App()
    async with served(app) as connect:
        java = await connect()
        await java.send(*pieces)
        status, headers, said = await java.answer()
        assert (status, bytes.fromhex(said["body"]), said["method"]) == (200, BODY, "POST")
        assert ["upgrade", "h2c"] not in said["headers"]
        assert ["host", "localhost"] in said["headers"]
        assert "connection" not in headers
        # The connection goes on, with and without offers.
        await java.send(request(method="GET"))
        assert (await java.answer())[0] == 200
        await java.send(*pieces)
        assert bytes.fromhex((await java.answer())[2]["body"]) == BODY
    assert app.asked == ["/", "/", "/"]


async def test_the_other_options_of_a_connection_that_offers_are_kept() -> None:
    async with served(App()) as connect:
        client = await connect()
        await client.send(request("/", "Connection: close, Upgrade", "Upgrade: websocket", method="GET"))
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.ended() == b""


@pytest.mark.parametrize("framing", ["Content-Length: 8000000", "Transfer-Encoding: chunked"])
async def test_a_client_that_sends_all_before_it_reads_sees_the_refusal(framing: str) -> None:
    """The sockets' buffers hold a part of the body only."""
    async with served(App()) as connect:
        client = await connect()
        body = b"z" * 8_000_000
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        await client.send(request("/unread", framing), chunked if "chunked" in framing else body)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.ended() == b""


async def test_a_refused_client_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_LINGER_BYTES", 3_000_000)
    async with served(App()) as connect:
        client = await connect()
        await client.send(request("/unread", "Transfer-Encoding: chunked"))
        assert (await client.answer())[0] == 200
        with pytest.raises(ConnectionError):
            await client.send(*(1_000 * [b"10000\r\n" + b"z" * 65_536 + b"\r\n"]))


@pytest.mark.usefixtures("quick")
async def test_a_refused_client_that_falls_silent_is_forgotten() -> None:
    async with served(App()) as connect:
        client = await connect()
        await client.send(request("/unread", "Content-Length: 1000"), b"z")
        assert (await client.answer())[0] == 200
        await client.ended()
        await asyncio.sleep(0.5)
        with pytest.raises(ConnectionError):
            await client.send(*(1_000 * [b"z"]))


@pytest.mark.usefixtures("quick")
async def test_an_answer_that_nobody_reads_ends() -> None:
    async with served(App()) as connect:
        client = await connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(*(request("/large", method="GET") for _ in range(20)))
        await asyncio.sleep(0.6)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await client.ended()) < 20_000_000


def test_a_client_who_goes_with_requests_under_way_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    """With uvloop, which the service runs on: it raises where a closed transport is written to."""

    async def run() -> None:
        app = App()
        async with served(app) as connect:
            client = await connect()
            await client.send(request("/held", method="GET") * 3)
            client.writer.transport.abort()
            await asyncio.sleep(0.05)
            app.go_on.set()
            await asyncio.sleep(0.05)
            assert app.asked == ["/held"]
            other = await connect()
            await other.send(request(method="GET"))
            assert (await other.answer())[0] == 200

    uvloop.run(run())
    assert caplog.text == ""


async def test_connections_without_a_request_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 20)
    app = App()
    async with served(app) as connect:
        silent = [await connect() for _ in range(20)]
        for client in silent[:10]:
            await client.send(b"GET / HT")
        for _ in range(3):
            polite = await connect()
            await polite.send(request(method="GET"))
            assert (await polite.answer())[0] == 200
        # The oldest went first.
        assert await silent[0].ended() == b""


async def test_idle_connections_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 20)
    async with served(App()) as connect:
        for _ in range(60):
            client = await connect()
            await client.send(request(method="GET"))
            assert (await client.answer())[0] == 200


async def test_where_all_connections_are_busy_the_newest_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 5)
    app = App()
    async with served(app) as connect:
        busy = [await connect() for _ in range(5)]
        for client in busy:
            await client.send(request("/held", method="GET"))
        await (await connect()).problem(429, "overloaded")
        app.go_on.set()
        assert [(await client.answer())[0] for client in busy] == 5 * [200]
