"""A front and a device owner over fake engines, in one process and one event loop, with a real socket between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from models.images.preprocess import Preprocess
from service.fronts.classifier import FrontClassifier
from service.fronts.owners import Owners
from service.http.access import AccessControl
from service.http.classify import ClassifyEndpoint
from service.http.front import FrontApp
from service.link.connection import Connection
from service.link.crops import Slots, Window
from service.link.messages import FromFront, FromOwner, Message, from_front, from_owner
from service.link.sockets import HandshakeError, connect, listen, welcome
from service.runtime.owner import Duties, owning
from service.telemetry.recorder import RequestMetrics
from tests.fakes import Fakes
from tests.waiting import soon

#: Of Inception v3, the largest that any preset makes.
LARGEST_CROP = 299 * 299 * 3


@dataclass
class Front:
    """A front, and a client that calls it without a socket."""

    owners: Owners
    classifier: FrontClassifier
    app: FrontApp
    client: httpx.AsyncClient

    @property
    def slots_used(self) -> int:
        return 0 if self.owners.memory is None else self.owners.memory.used


@asynccontextmanager
async def owner_of(
    fakes: Fakes, path: Path, *, warm: bool = True, largest_crop: int = LARGEST_CROP
) -> AsyncIterator[None]:
    """A device owner that listens on ``path``."""
    async with fakes.app(warm=warm) as app:
        duties = Duties(app.classifies, app.others, fakes.settings.max_pixels, largest_crop)
        async with owning(path, duties):
            yield


@asynccontextmanager
async def front_of(fakes: Fakes, folder: Path) -> AsyncIterator[Front]:
    """A front for the owners whose sockets are in ``folder``."""
    owners = Owners(folder)
    classifier = FrontClassifier(owners, fakes.settings)
    endpoint = ClassifyEndpoint(classifier, fakes.settings, RequestMetrics([]), AccessControl.of(fakes.settings))

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        yield

    app = FrontApp(endpoint, owners, lifespan)
    owners.begin()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Front(owners, classifier, app, client)
    finally:
        await owners.end()
        classifier.close()


@asynccontextmanager
async def fronted(fakes: Fakes, folder: Path, *, warm: bool = True) -> AsyncIterator[Front]:
    """A front with an owner behind it."""
    async with AsyncExitStack() as both:
        await both.enter_async_context(owner_of(fakes, folder / "0.sock", warm=warm))
        front = await both.enter_async_context(front_of(fakes, folder))
        await asyncio.wait_for(front.owners.wait(), 10)
        yield front


class RawFront:
    """A front that sends what a test says, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[FromOwner] = []
        self.lost = False
        self.connection: Connection[FromOwner] = Connection(from_owner, self.told.append, self._lost)
        self.memory: Slots | None = None

    def _lost(self) -> None:
        self.lost = True

    @classmethod
    async def of(cls, path: Path) -> RawFront:
        """Connects to an owner."""
        front = cls()
        connected, front.memory = await connect(path, None)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: front.connection, connected)
        return front

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.connection.send(message)

    async def tells(self, count: int) -> list[FromOwner]:
        """The next messages, of which there must be so many."""
        await soon(lambda: len(self.told) >= count or self.lost)
        told = self.told[:count]
        del self.told[:count]
        assert len(told) == count, "the connection has ended"
        return told

    def put(self, value: int, preprocess: Preprocess) -> int:
        """Puts a crop of one value into a slot, whose number is returned."""
        assert self.memory is not None
        return self.memory.put(np.full((preprocess.side, preprocess.side, preprocess.channels), value, np.uint8))

    async def end(self) -> None:
        self.connection.close()
        await soon(lambda: self.lost)
        if self.memory is not None:
            self.memory.close()
            self.memory = None


@asynccontextmanager
async def raw_front(path: Path) -> AsyncIterator[RawFront]:
    """A raw front of an owner."""
    front = await RawFront.of(path)
    try:
        yield front
    finally:
        await front.end()


class RawOwner:
    """A device owner that says what a test wants, to the fronts that connect to it."""

    def __init__(self, largest_crop: int) -> None:
        self._largest_crop = largest_crop
        self.told: list[FromFront] = []
        """What all fronts have said, but for what ``answers`` has dealt with."""
        self.beginning: set[asyncio.Task[None]] = set()
        self.connections: list[Connection[FromFront]] = []
        self.windows: list[Window] = []
        self.lost = 0
        self.answers: Callable[[FromFront], Sequence[FromOwner]] | None = None

    def _received(self, message: FromFront) -> None:
        if self.answers is None:
            self.told.append(message)
        else:
            self.send(*self.answers(message))

    def _lost(self) -> None:
        self.lost += 1

    def accept(self, listener: socket.socket) -> None:
        """Accepts a front that is there."""
        connected, _ = listener.accept()
        task = asyncio.get_running_loop().create_task(self._begin(connected))
        self.beginning.add(task)
        task.add_done_callback(self.beginning.discard)

    async def _begin(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        try:
            accepted = await welcome(connected, self._largest_crop)
        except HandshakeError:
            connected.close()  # the front has gone meanwhile
            return
        except BaseException:
            connected.close()
            raise
        connection: Connection[FromFront] = Connection(from_front, self._received, self._lost)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, connected)
        self.windows.append(accepted.window)
        self.connections.append(connection)

    def send(self, *messages: Message) -> None:
        """Says that to the front that connected last."""
        for message in messages:
            self.connections[-1].send(message)

    async def tells(self, count: int) -> list[FromFront]:
        """The next messages of fronts, of which there must be so many."""
        await soon(lambda: len(self.told) >= count)
        told = self.told[:count]
        del self.told[:count]
        return told

    def close(self) -> None:
        """Ends all connections, as a death does."""
        for connection in self.connections:
            connection.close()


@asynccontextmanager
async def raw_owner(path: Path, largest_crop: int = LARGEST_CROP) -> AsyncIterator[RawOwner]:
    """A raw owner that listens on ``path``."""
    owner = RawOwner(largest_crop)
    listener, loop = listen(path), asyncio.get_running_loop()
    loop.add_reader(listener, owner.accept, listener)
    try:
        yield owner
    finally:
        loop.remove_reader(listener)
        listener.close()
        beginning = tuple(owner.beginning)
        for task in beginning:
            task.cancel()
        await asyncio.gather(*beginning, return_exceptions=True)
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - it is a local socket
        owner.close()
        await asyncio.sleep(0)
