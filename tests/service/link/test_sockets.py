"""How a connection begins: what is agreed on, and every way in which the other side can be wrong, slow or silent."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.images.preprocess import Preprocess
from service.link import sockets as module
from service.link.crops import Slots, slot_bytes
from service.link.messages import VERSION
from service.link.sockets import Accepted, HandshakeError, connect, listen, welcome
from tests.left_over import nothing_left

PAGE = mmap.PAGESIZE
CROP = 64 * 64
GREY = Preprocess("warp", 64, 64, colour="grey")


@pytest.fixture(autouse=True)
def all_is_closed() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WITHIN_S", 0.05)


@asynccontextmanager
async def accepted(path: Path, largest_crop: int = CROP) -> AsyncIterator[asyncio.Task[Accepted]]:
    """Welcomes the first who connects."""
    listener = listen(path)

    async def accept() -> Accepted:
        connected, _ = await asyncio.get_running_loop().sock_accept(listener)
        try:
            connected.setblocking(False)
            return await welcome(connected, largest_crop)
        except BaseException:
            connected.close()
            raise

    task = asyncio.create_task(accept())
    try:
        yield task
    finally:
        listener.close()
        task.cancel()
        with suppress(asyncio.CancelledError, HandshakeError):
            (await task).socket.close()


async def test_the_owner_says_how_large_slots_must_be_and_sees_what_the_front_puts(tmp_path: Path) -> None:
    async with accepted(tmp_path / "0.sock", PAGE + 1) as accepting:
        connected, memory = await connect(tmp_path / "0.sock", None)
        window = (await accepting).window
        assert (memory.size, memory.count) == (2 * PAGE, 1024)
        memory.put(np.zeros(1, np.uint8))
        assert (window.crop(memory.put(np.full(CROP, 5, np.uint8)), GREY) == 5).all()
        assert (window.crop(0, GREY) == 0).all()
        # After the handshake the sockets carry whatever is sent.
        await asyncio.get_running_loop().sock_sendall(connected, b"hello")
        assert await asyncio.get_running_loop().sock_recv((await accepting).socket, 100) == b"hello"
        connected.close()
        memory.close()
        accepting.result().socket.close()


@pytest.mark.parametrize(("size", "kept"), [(PAGE, True), (4 * PAGE, True), (2 * PAGE, True)])
async def test_memory_is_kept_whose_slots_are_large_enough(tmp_path: Path, size: int, kept: bool) -> None:
    memory = Slots(size, 3)
    memory.put(np.full(CROP, 3, np.uint8))
    async with accepted(tmp_path / "0.sock", CROP) as accepting:
        connected, given = await connect(tmp_path / "0.sock", memory)
        assert (given is memory) is kept
        window = (await accepting).window
        assert (window.crop(0, GREY) == 3).all()
        with pytest.raises(ValueError, match="slot 3 of 3"):
            window.crop(3, GREY)
        connected.close()
    memory.close()


async def test_memory_whose_slots_are_too_small_is_replaced_and_stays_usable(tmp_path: Path) -> None:
    memory = Slots(PAGE, 3)
    async with accepted(tmp_path / "0.sock", PAGE + 1):
        connected, given = await connect(tmp_path / "0.sock", memory)
        assert given is not memory
        assert given.size == slot_bytes(PAGE + 1) == 2 * PAGE
        assert memory.put(np.zeros(PAGE, np.uint8)) == 0
        connected.close()
        given.close()
    memory.close()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect(tmp_path / "0.sock", None)
    listen(tmp_path / "0.sock").close()
    with pytest.raises(ConnectionRefusedError):
        await connect(tmp_path / "0.sock", None)


async def test_a_socket_that_was_left_over_is_replaced(tmp_path: Path) -> None:
    listen(tmp_path / "0.sock").close()
    (tmp_path / "0.sock~").write_text("left by an owner that was killed while it began")
    async with accepted(tmp_path / "0.sock") as accepting:
        connected, memory = await connect(tmp_path / "0.sock", None)
        await accepting
        connected.close()
        memory.close()
    assert not (tmp_path / "0.sock~").exists()


@pytest.mark.parametrize("folder", ["x" * 120, "missing"], ids=["too long", "no folder"])
def test_a_socket_that_cannot_be_made(tmp_path: Path, folder: str) -> None:
    if len(folder) > 100:
        (tmp_path / folder).mkdir()
    with pytest.raises(OSError, match=r"too long|No such file"):
        listen(tmp_path / folder / "0.sock")


def hello(
    magic: bytes = b"top5", version: int = VERSION, size: int = PAGE, count: int = 1, *, cut: int | None = None
) -> bytes:
    return struct.pack("<4sHII", magic, version, size, count)[:cut]


def memory_file(size: int = PAGE, **_: Any) -> int:
    """A memory that a front could have made, of one slot."""
    made = Slots(PAGE, -(-size // PAGE))
    file = os.dup(made.file)
    made.close()
    return file


def loose(flags: int = 0) -> int:
    file = os.memfd_create("loose", flags)
    os.ftruncate(file, PAGE)
    return file


def only_to_write() -> int:
    file = memory_file()
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_WRONLY)
    finally:
        os.close(file)


FRONTS: list[tuple[str, bytes, list[Callable[[], int]], str]] = [
    ("another protocol", hello(b"http"), [memory_file], "version"),
    ("another version", hello(version=VERSION + 1), [memory_file], f"version {VERSION + 1} .* speaks {VERSION}"),
    ("no memory", hello(), [], "sent 0 files"),
    ("two memories", hello(), [memory_file] * 2, "sent 2 files"),
    ("more files than are read", hello(), [memory_file] * 9, "sent 4 files"),
    ("too small a memory", hello(count=2), [memory_file], "has not 2 slots"),
    ("no slots", hello(count=0), [memory_file], "has not 0 slots"),
    ("slots of nothing", hello(size=0), [memory_file], "of 0 bytes"),
    ("impossibly many slots", hello(size=2**32 - 1, count=2**32 - 1), [memory_file], "has not"),
    ("a memory that may be cut short", hello(), [loose], "introduced itself wrongly"),
    ("an unsealed memory", hello(), [lambda: loose(os.MFD_ALLOW_SEALING)], "cut short"),
    ("a memory only to write", hello(), [only_to_write], "introduced itself wrongly"),
    ("a folder", hello(), [lambda: os.open("/", os.O_RDONLY)], "introduced itself wrongly"),
    ("a pipe", hello(), [lambda: os.eventfd(0)], "has not 1 slots"),
    ("half an introduction", hello(cut=7), [memory_file], "closed the connection"),
    ("nothing", b"", [], "closed the connection"),
]


@pytest.mark.parametrize(("data", "files", "why"), [row[1:] for row in FRONTS], ids=[row[0] for row in FRONTS])
async def test_an_owner_refuses_a_wrong_front(data: bytes, files: list[Callable[[], int]], why: str) -> None:
    ours, theirs = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(ours)
        handed = [make() for make in files]
        for file in handed:
            stack.callback(os.close, file)
        ours.setblocking(False)
        if data:
            socket.send_fds(theirs, [data], handed)
        # It says no more.
        theirs.shutdown(socket.SHUT_WR)
        stack.enter_context(theirs)
        with pytest.raises(HandshakeError, match=why):
            await asyncio.wait_for(welcome(ours, CROP), 5)


@pytest.mark.usefixtures("soon_over")
@pytest.mark.parametrize("data", [b"", hello(cut=1), hello(cut=13)], ids=["silent", "stops early", "stops late"])
async def test_an_owner_does_not_wait_for_a_slow_front(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        if data:
            file = memory_file()
            socket.send_fds(theirs, [data], [file])
            os.close(file)
        with pytest.raises(HandshakeError, match="too long"):
            await asyncio.wait_for(welcome(ours, CROP), 5)


async def test_an_introduction_may_come_in_parts() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        welcoming = asyncio.create_task(welcome(ours, CROP))
        file, data = memory_file(), hello()
        for position in range(len(data)):
            socket.send_fds(theirs, [data[position : position + 1]], [file] if position == 5 else [])
            await asyncio.sleep(0)
        os.close(file)
        assert (await asyncio.wait_for(welcoming, 5)).window.crop(0, GREY).shape == (64, 64, 1)
        # What was welcomed is what every front is told first.
        assert theirs.recv(100) == struct.pack("<4sHI", b"top5", VERSION, PAGE)


async def test_what_follows_an_introduction_is_left_for_the_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        file = memory_file()
        socket.send_fds(theirs, [hello() + b"a message"], [file])
        os.close(file)
        await asyncio.wait_for(welcome(ours, CROP), 5)
        assert ours.recv(100) == b"a message"


def said(magic: bytes = b"top5", version: int = VERSION, size: int = PAGE, *, cut: int | None = None) -> bytes:
    return struct.pack("<4sHI", magic, version, size)[:cut]


OWNERS: list[tuple[str, bytes, str]] = [
    ("another protocol", said(b"SSH-"), "version"),
    ("another version", said(version=VERSION + 1), f"owner speaks version {VERSION + 1} .* front speaks {VERSION}"),
    ("slots of nothing", said(size=0), "slots of 0 bytes"),
    ("slots of half a page", said(size=PAGE // 2), f"slots of {PAGE // 2} bytes"),
    ("nothing", b"", "closed the connection"),
    ("half a welcome", said(cut=9), "closed the connection"),
]


@asynccontextmanager
async def wrong_owner(path: Path, data: bytes, *, ends: bool) -> AsyncIterator[None]:
    """Says that to all who connect."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(data)
        if ends:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield
    for writer in connections:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(("data", "why"), [row[1:] for row in OWNERS], ids=[row[0] for row in OWNERS])
async def test_a_front_refuses_a_wrong_owner(tmp_path: Path, data: bytes, why: str) -> None:
    async with wrong_owner(tmp_path / "0.sock", data, ends=True):
        with pytest.raises(HandshakeError, match=why):
            await asyncio.wait_for(connect(tmp_path / "0.sock", None), 5)


@pytest.mark.usefixtures("soon_over")
@pytest.mark.parametrize("data", [b"", said(cut=9)], ids=["silent", "stops"])
async def test_a_front_does_not_wait_for_a_slow_owner(tmp_path: Path, data: bytes) -> None:
    async with wrong_owner(tmp_path / "0.sock", data, ends=False):
        with pytest.raises(HandshakeError, match="in time"):
            await asyncio.wait_for(connect(tmp_path / "0.sock", None), 5)


@pytest.mark.parametrize("side", ["front", "owner"])
async def test_a_handshake_that_is_cancelled_leaves_nothing(tmp_path: Path, side: str) -> None:
    if side == "front":
        async with wrong_owner(tmp_path / "0.sock", b"", ends=False):
            beginning: asyncio.Task[Any] = asyncio.create_task(connect(tmp_path / "0.sock", None))
            await asyncio.sleep(0.01)
            beginning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await beginning
        return
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        file = memory_file()
        socket.send_fds(theirs, [hello(cut=3)], [file])
        os.close(file)
        beginning = asyncio.create_task(welcome(ours, CROP))
        await asyncio.sleep(0.01)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
