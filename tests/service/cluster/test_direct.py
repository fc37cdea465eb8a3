"""An ingress replica that also listens on a socket of its own: with HTTP over that socket, and without Ray."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.waiting import until

with warnings.catch_warnings():
    # Ray Serve uses what pydantic deprecates.
    warnings.simplefilter("ignore")
    from service.cluster import direct as module
    from service.cluster.direct import Direct, direct


class App:
    """An application that writes down what happens to it; ``/slow`` waits until a test lets it go on."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.scopes: list[Scope] = []
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            self.log.append("begins")
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            self.log.append("ends")
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.scopes.append(scope)
        if scope["path"] == "/slow":
            self.asked.set()
            await self.go_on.wait()
        self.log.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Lifespan:
    """The server's side of an application's lifespan."""

    def __init__(self, app: Direct) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.answers: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self.task = asyncio.create_task(app(scope, self._messages.get, self.answers.put))

    async def say(self, what: str) -> str:
        """Sends a message, and returns the type of the answer."""
        self._messages.put_nowait({"type": f"lifespan.{what}"})
        return str((await asyncio.wait_for(self.answers.get(), 10))["type"])


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose path is short enough for a socket's: the path of this one may not be."""
    monkeypatch.chdir(tmp_path)
    return Path()


@asynccontextmanager
async def client(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://replica", timeout=10) as found:
        yield found


def accepts(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
    return True


async def there(path: Path) -> None:
    """Waits for a socket."""
    await asyncio.to_thread(until, path.is_socket, 10)


async def test_the_application_answers_on_its_socket_between_start_and_end(sockets: Path) -> None:
    app, path = App(), sockets / "ab12cd34"
    lifespan = Lifespan(Direct(app, path))
    assert await lifespan.say("startup") == "lifespan.startup.complete"
    await there(path)
    async with client(path) as http:
        assert (await http.get("/classify", headers={"x-request-id": "mine"})).headers["x-request-id"] == "mine"
        # Serve gives ids, and where Serve is not asked, we do.
        assert len((await http.get("/models")).headers["x-request-id"]) == 32
    assert [scope["client"] for scope in app.scopes] == [("127.0.0.1", 0)] * 2, "who connects is on this machine"
    assert await lifespan.say("shutdown") == "lifespan.shutdown.complete"
    await asyncio.wait_for(lifespan.task, 10)
    assert app.log == ["begins", "/classify", "/models", "ends"]
    assert not path.exists(), "HAProxy must not be sent to a socket that nobody answers"


async def test_running_requests_are_answered_before_the_application_ends(sockets: Path) -> None:
    app, path = App(), sockets / "ab12cd34"
    lifespan = Lifespan(Direct(app, path))
    await lifespan.say("startup")
    await there(path)
    async with client(path) as http:
        slow = asyncio.create_task(http.get("/slow"))
        await asyncio.wait_for(app.asked.wait(), 10)
        ending = asyncio.create_task(lifespan.say("shutdown"))
        await asyncio.to_thread(until, lambda: not accepts(path), 10)
        assert not ending.done()
        assert app.log == ["begins"]
        app.go_on.set()
        assert (await slow).status_code == 200
    assert await ending == "lifespan.shutdown.complete"
    await lifespan.task
    assert app.log == ["begins", "/slow", "ends"]


async def test_an_application_that_cannot_begin_leaves_no_socket(sockets: Path) -> None:
    class Broken(App):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.02)
            raise ArithmeticError("no network")

    path = sockets / "ab12cd34"
    lifespan = Lifespan(Direct(Broken(), path))
    await there(path)
    with pytest.raises(ArithmeticError):
        await asyncio.wait_for(lifespan.task, 10)
    assert not path.exists()


async def test_requests_over_serves_port_reach_the_application_as_they_are(sockets: Path) -> None:
    """Serve has given them an id, so nothing is added."""
    app = App()
    scope: dict[str, Any] = {"type": "http", "path": "/models", "headers": [], "client": ("10.0.0.1", 7)}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await Direct(app, sockets / "ab12cd34")(scope, receive, send)
    assert app.scopes == [scope]
    assert sent[0]["headers"] == [(b"content-length", b"2")]


async def test_a_socket_that_cannot_be_made_costs_nothing_but_the_shorter_way(
    sockets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """HAProxy then asks over Serve's port."""
    app, path = App(), sockets / ("x" * 200)
    lifespan = Lifespan(Direct(app, path))
    assert await lifespan.say("startup") == "lifespan.startup.complete"
    await asyncio.sleep(0.01)
    assert await lifespan.say("shutdown") == "lifespan.shutdown.complete"
    await asyncio.wait_for(lifespan.task, 10)
    assert app.log == ["begins", "ends"]
    assert "AF_UNIX path too long" in caplog.text


def test_the_socket_has_the_name_by_which_serve_calls_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``lifecycle/haproxy.py`` looks for it in this folder."""
    made: list[tuple[object, Path]] = []
    monkeypatch.setattr(module.serve, "get_replica_context", lambda: SimpleNamespace(replica_tag="ab12cd34"))
    monkeypatch.setattr(module, "Direct", lambda *arguments: made.append(arguments))
    for app in ("one replica", "another"):
        direct(app, tmp_path)  # type: ignore[arg-type]
    assert made == [("one replica", tmp_path / "i" / "ab12cd34"), ("another", tmp_path / "i" / "ab12cd34")]
    assert (tmp_path / "i").is_dir()
