"""The server on sockets that listen already: how it starts, what it says, and how it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.http import server
from service.http.server import configured, serving


class App:
    """An application that writes down what it was asked; ``/slow`` waits until a test lets it go on."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/slow":
            self.asked.set()
            await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def client(listener: socket.socket) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url(listener), timeout=10, trust_env=False) as found:
        yield found


async def refused(address: tuple[str, int]) -> None:
    """Waits until the port is closed."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection(*address)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # the port was closed before the server took the connection
            writer.close()


async def test_all_sockets_are_served_while_the_block_runs(listener: socket.socket) -> None:
    app = App()
    with socket.create_server(("127.0.0.1", 0)) as other:
        addresses = [url(listener), url(other)]
        async with serving(app, [listener, other]):
            for address in addresses:
                async with httpx.AsyncClient(base_url=address, timeout=10, trust_env=False) as http:
                    answer = await http.get("/models")
                    assert (answer.status_code, answer.text) == (200, "ok")
                    # Who asks learns nothing of what serves.
                    assert "server" not in answer.headers
        for address in addresses:
            async with httpx.AsyncClient(base_url=address, timeout=10, trust_env=False) as http:
                with pytest.raises(httpx.ConnectError):
                    await http.get("/models")
    # The lifespan is the caller's business.
    assert [scope["type"] for scope in app.scopes] == ["http", "http"]


async def test_running_requests_are_answered_before_the_end(listener: socket.socket) -> None:
    app, address = App(), listener.getsockname()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(app, [listener]):
            await over.wait()

    running = asyncio.create_task(serve())
    async with client(listener) as http:
        slow = asyncio.create_task(http.get("/slow"))
        await asyncio.wait_for(app.asked.wait(), 10)
        over.set()
        await refused(address)
        # uvicorn looks ten times a second whether its connections have ended.
        await asyncio.wait({running}, timeout=0.3)
        assert not running.done()
        app.go_on.set()
        assert (await slow).text == "ok"
    await asyncio.wait_for(running, 10)


async def test_a_request_that_never_ends_does_not_keep_the_server_for_ever(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_ANSWER_WITHIN_S", 0.05)
    app = App()
    async with client(listener) as http:
        async with asyncio.timeout(10):
            async with serving(app, [listener]):
                slow = asyncio.create_task(http.get("/slow"))
                await app.asked.wait()
        with pytest.raises(httpx.HTTPError):
            (await slow).raise_for_status()


async def test_idle_connections_end_with_the_server(listener: socket.socket) -> None:
    """A client that keeps its connection must not keep the server."""
    async with client(listener) as http:
        async with asyncio.timeout(10):
            async with serving(App(), [listener]):
                assert (await http.get("/models")).status_code == 200


async def test_signals_are_left_to_the_process(listener: socket.socket) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serving(App(), [listener]), client(listener) as http:
        await http.get("/models")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_headers_that_a_caller_writes_do_not_change_its_address(listener: socket.socket) -> None:
    """``callers.py`` reads them where it matters: a caller who is not on this machine may not say that it is."""
    app = App()
    async with serving(app, [listener]), client(listener) as http:
        await http.get("/models", headers={"x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "https"})
    (scope,) = app.scopes
    assert scope["client"][0] == "127.0.0.1"
    assert scope["scheme"] == "http"


@pytest.mark.parametrize(("lifespan", "messages"), [(True, ["lifespan.startup", "lifespan.shutdown"]), (False, [])])
async def test_the_applications_lifespan_is_run_where_that_is_asked(
    listener: socket.socket, lifespan: bool, messages: list[str]
) -> None:
    said: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message: Message = await receive()
                said.append(message["type"])
                await send({"type": f"{message['type']}.complete"})
            return
        await App()(scope, receive, send)

    running = server._WithoutSignals(configured(app, lifespan=lifespan))
    serve = asyncio.create_task(running.serve([listener]))
    async with client(listener) as http:
        assert (await http.get("/models")).status_code == 200
    running.should_exit = True
    await asyncio.wait_for(serve, 10)
    assert said == messages


def test_connections_are_kept_for_longer_than_clients_keep_theirs() -> None:
    """Else a client sends its next request into a connection that is being closed. Most keep theirs for a minute."""
    assert configured(App.__call__, lifespan=False).timeout_keep_alive > 60  # type: ignore[arg-type]
