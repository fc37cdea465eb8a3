"""The sockets between fronts and device owners, and how a connection begins.

An owner listens on a socket in the service's folder, which only this user may enter. Who connects is told how large the
slots must be, and sends the descriptor of its memory with the answer. All that has a bounded time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.link.crops import Slots, Window, slot_bytes
from service.link.messages import VERSION

#: The folder of the owners' sockets in the service's folder. Its name is short, because the path of a socket has at
#: most 107 bytes.
FOLDER = "o"
_MAGIC = b"top5"
#: Magic and version; bytes of a slot. Then the same from the front, and how many slots it has.
_WELCOME, _HELLO = struct.Struct("<4sHI"), struct.Struct("<4sHII")
_WITHIN_S = 5.0
_BACKLOG = 128


class HandshakeError(RuntimeError):
    """A connection could not begin; the text says why."""


class Accepted(NamedTuple):
    """A front that has connected."""

    socket: socket.socket
    window: Window


def listen(path: Path) -> socket.socket:
    """Listens on a socket of that path, which must be free or left over.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileNotFoundError):
        path.unlink()
    # Another name first: who finds the socket must be able to connect.
    part = path.with_name(f"{path.name}~")
    with suppress(FileNotFoundError):
        part.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(str(part))
        listener.listen(_BACKLOG)
        part.rename(path)
    except BaseException:
        listener.close()
        raise
    return listener


async def welcome(connected: socket.socket, largest_crop: int) -> Accepted:
    """Begins a connection on the owner's side.

    Args:
        connected: what ``accept`` gave.
        largest_crop: bytes of the largest crop that this owner will want.

    Raises:
        HandshakeError: the front is of another version, sends no memory, or takes too long.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_WITHIN_S):
            await loop.sock_sendall(connected, _WELCOME.pack(_MAGIC, VERSION, slot_bytes(largest_crop)))
            hello, files = await _received_with_files(connected, _HELLO.size)
    except (TimeoutError, OSError) as error:
        raise HandshakeError(f"a front did not introduce itself: {str(error) or 'it took too long'}") from error
    try:
        magic, version, size, count = _HELLO.unpack(hello)
        if (magic, version) != (_MAGIC, VERSION):
            raise HandshakeError(f"a front speaks version {version} of the protocol, this owner speaks {VERSION}")
        if len(files) != 1:
            raise HandshakeError(f"a front sent {len(files)} files for its memory instead of one")
        file = files.pop()
        return Accepted(connected, Window(file, size, count))
    except (OSError, ValueError) as error:
        raise HandshakeError(f"a front introduced itself wrongly: {error}") from error
    finally:
        for file in files:
            os.close(file)


async def connect(path: Path, memory: Slots | None) -> tuple[socket.socket, Slots]:
    """Connects a front to an owner.

    Args:
        path: the owner's socket.
        memory: the front's memory, if it has some already. It is used if its slots are large enough.

    Returns:
        The socket, and the memory that was handed over.

    Raises:
        OSError: nobody listens there.
        HandshakeError: the owner is of another version, wants impossible slots, or takes too long.
    """
    loop = asyncio.get_running_loop()
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        async with asyncio.timeout(_WITHIN_S):
            await loop.sock_connect(connecting, str(path))
            magic, version, size = _WELCOME.unpack(await _received(connecting, _WELCOME.size))
        if (magic, version) != (_MAGIC, VERSION):
            raise HandshakeError(f"the owner speaks version {version} of the protocol, this front speaks {VERSION}")
        if memory is None or memory.size < size:
            memory = _slots(size)
        hello = _HELLO.pack(_MAGIC, VERSION, memory.size, memory.count)
        # A few bytes into an empty buffer: this does not block.
        socket.send_fds(connecting, [hello], [memory.file])
        return connecting, memory
    except TimeoutError as error:
        connecting.close()
        raise HandshakeError("the owner did not introduce itself in time") from error
    except BaseException:
        connecting.close()
        raise


def _slots(size: int) -> Slots:
    try:
        return Slots(size)
    except (OSError, ValueError) as error:
        raise HandshakeError(f"the owner wants slots of {size} bytes, which cannot be had: {error}") from error


async def _received(connected: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = await asyncio.get_running_loop().sock_recv(connected, size - len(received))
        if not part:
            raise HandshakeError("the other side has closed the connection")
        received += part
    return received


async def _received_with_files(connected: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """That many bytes, and the descriptors that came with them."""
    loop = asyncio.get_running_loop()
    received, files = b"", list[int]()
    try:
        while len(received) < size:
            readable = loop.create_future()
            loop.add_reader(connected, _set, readable)
            try:
                await readable
            finally:
                loop.remove_reader(connected)
            part, found, _flags, _address = socket.recv_fds(connected, size - len(received), 4)
            files += found
            if not part:
                raise HandshakeError("the other side has closed the connection")
            received += part
    except BaseException:
        for file in files:
            os.close(file)
        raise
    return received, files


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
