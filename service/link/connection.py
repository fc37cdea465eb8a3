"""Messages over a stream socket: each in a frame, four bytes of length before it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

from service.link.messages import Message, encode

log = logging.getLogger(__name__)

Received = TypeVar("Received")

#: The largest frame. Answers of other paths are the largest messages, by far: /openapi.json has some 30 kB.
MOST_BYTES = 16 * 1024 * 1024
_LENGTH = 4
#: How long a patient message waits for others.
_MOMENT_S = 0.001


class Connection(asyncio.Protocol, Generic[Received]):
    """One end of a connection. Not thread-safe: use it from one event loop.

    A message that cannot be read closes the connection: what else has been misunderstood is unknown.

    Args:
        read: one message of the other side, from its bytes; raises msgspec.DecodeError.
        received: called with each message. An exception of its closes the connection.
        lost: called once, when the connection has ended.
    """

    def __init__(
        self,
        read: Callable[[memoryview], Received],
        received: Callable[[Received], None],
        lost: Callable[[], None],
    ) -> None:
        self._read = read
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._frames: list[bytes] = []
        self._flushing: asyncio.Handle | None = None
        """What will send them."""
        self._patient = False
        self._loop = asyncio.get_running_loop()

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        lost = self._lost
        # Whoever owns this connection is referred to here. Without that its memory goes at once, not when Python
        # next looks for cycles, which in an owner may take minutes and hold hundreds of megabytes.
        self._received = self._lost = _nothing
        lost()

    def send(self, message: Message, *, patient: bool = False) -> None:
        """Sends a message, together with all others of this turn of the event loop. A message to a connection that has
        ended is lost; ``lost`` says so.

        Args:
            message: the message.
            patient: whether it may wait a moment for others. Each write wakes the other process, which costs more than
                all else that is done for a message.
        """
        frame = encode(message)
        if self._flushing is None or (self._patient and not patient):
            if self._flushing is not None:
                self._flushing.cancel()
            self._patient = patient
            self._flushing = (
                self._loop.call_later(_MOMENT_S, self._flush) if patient else self._loop.call_soon(self._flush)
            )
        self._frames.append(len(frame).to_bytes(_LENGTH, "little"))
        self._frames.append(frame)

    def _flush(self) -> None:
        self._flushing = None
        frames, self._frames = self._frames, []
        if self._transport is not None:
            self._transport.write(b"".join(frames))

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        view, start, end = memoryview(data), 0, len(data)
        while end - start >= _LENGTH:
            size = int.from_bytes(view[start : start + _LENGTH], "little")
            if size > MOST_BYTES:
                return self._give_up(f"a frame of {size:,} bytes")
            stop = start + _LENGTH + size
            if stop > end:
                break
            try:
                self._received(self._read(view[start + _LENGTH : stop]))
            except msgspec.DecodeError as error:
                return self._give_up(f"a message that cannot be read ({error})")
            except Exception as error:
                log.error("a message could not be handled", exc_info=error)
                return self._give_up("a message that cannot be handled")
            if self._transport is None or self._transport.is_closing():
                return None
            start = stop
        self._rest = data[start:]
        return None

    def _give_up(self, why: str) -> None:
        self._rest = b""
        log.warning("a connection between front and device owner is closed: %s", why)
        self.close()


def _nothing(*_: object) -> None:
    pass
