"""Reads a request's body, with limits on its size and on the memory of all bodies, and a minimum rate."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.domain.errors import BodyTooLargeError, BodyTooSlowError
from service.http.body_memory import SMALL, BodyMemory, Room

#: A body has ``GRACE_S`` seconds to arrive, and one more for each ``LEAST_RATE`` bytes that have come. Apache's default
#: is the same (mod_reqtimeout, ``RequestReadTimeout body=20,MinRate=500``). No pause may be longer than ``GRACE_S``:
#: whoever has sent megabytes could fall silent for hours.
GRACE_S = 20.0
LEAST_RATE = 500
#: How often the bodies that are still arriving are checked.
_CHECK_EVERY_S = 0.5
#: Chunks of fewer bytes than ``_SMALL`` are joined until they have ``_GATHERED``: an object for every few bytes would
#: take many times the body's memory.
_SMALL = 4 * 1024
_GATHERED = 64 * 1024


class Upload(NamedTuple):
    """A body that has arrived."""

    chunks: list[bytes]
    """Its bytes, in the order in which they came."""
    size: int
    ended: float
    """When the last byte arrived, on ``time.monotonic()``."""

    def content(self) -> bytes:
        """The whole body, which is one chunk from then on. Joining chunks takes milliseconds if they have megabytes."""
        if len(self.chunks) != 1:
            self.chunks[:] = [b"".join(self.chunks)]
        return self.chunks[0]


class Uploads:
    """The bodies that are arriving on one event loop.

    One timer watches all of them while there are any. A timer for each would cost every request several microseconds.

    Args:
        memory: what all bodies of this process may take.
    """

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._due: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(
        self, receive: Receive, room: Room, max_bytes: int, announced: int | None = None, copies: int = 1
    ) -> Upload:
        """Reads a body to its end.

        A body that cannot be taken by the size that it announces is refused before ``receive`` is called: that would
        ask a client who waits for it (``Expect: 100-continue``) to send.

        Args:
            receive: ASGI's.
            room: the memory that the body takes. It is the caller's to free, also after an error.
            max_bytes: of this body.
            announced: its Content-Length, if it has one.
            copies: how many times its size it takes while it is parsed.

        Raises:
            BodyTooLargeError: the body has more than ``max_bytes``.
            BodyTooSlowError: the body takes longer than it may.
            OverloadedError: the memory for bodies has no room for it.
            ClientDisconnect: the client disconnected before the body's end.
        """
        if announced is not None and announced > SMALL:
            if announced > max_bytes:
                raise _too_large(max_bytes)
            self._memory.check(copies * announced)
        task, started = asyncio.current_task(), time.monotonic()
        assert task is not None
        cancelled_before = task.cancelling()
        self._due[task] = started + GRACE_S
        if self._timer is None:
            self._check_later()
        try:
            message = await receive()
            if message.get("more_body", False):
                return await self._read_on(task, started, message, receive, room, max_bytes)
        except asyncio.CancelledError:
            if task not in self._overdue or task.uncancel() > cancelled_before:
                raise
            raise BodyTooSlowError(
                f"the body had not arrived after {time.monotonic() - started:.0f} s; it may take {GRACE_S:g} s, and "
                f"one more for each {LEAST_RATE} bytes of it, and less while other bodies need the memory; send it "
                "without pauses"
            ) from None
        finally:
            del self._due[task]
            self._overdue.discard(task)
        content = _bytes_of(message)
        size = len(content)
        if size > max_bytes:
            raise _too_large(max_bytes)
        room.take_first(size)
        return Upload([content], size, time.monotonic())

    async def _read_on(
        self,
        task: asyncio.Task[object],
        started: float,
        message: Message,
        receive: Receive,
        room: Room,
        max_bytes: int,
    ) -> Upload:
        chunks = _Chunks()
        room.arrives(partial(self._end, task))
        try:
            while True:
                chunks.add(_bytes_of(message))
                if chunks.size > max_bytes:
                    raise _too_large(max_bytes)
                room.grow(chunks.size)
                if not message.get("more_body", False):
                    return chunks.upload()
                self._due[task] = min(started + chunks.size / LEAST_RATE, time.monotonic()) + GRACE_S
                message = await receive()
        finally:
            room.arrived()

    def _end(self, task: asyncio.Task[object]) -> None:
        """Ends a read as one that has taken too long."""
        if task not in self._overdue:
            self._overdue.add(task)
            task.cancel()

    def _check_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        """Cancels the reads that have taken too long."""
        now = time.monotonic()
        for task, due in self._due.items():
            if due < now:
                self._end(task)
        self._timer = None
        if self._due:
            self._check_later()


class _Chunks:
    """The part of a body that has arrived."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._gathered = bytearray()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if len(chunk) < _SMALL:
            self._gathered += chunk
            if len(self._gathered) >= _GATHERED:
                self._end_gathering()
        else:
            self._end_gathering()
            self._chunks.append(chunk)

    def upload(self) -> Upload:
        self._end_gathering()
        return Upload(self._chunks, self.size, time.monotonic())

    def _end_gathering(self) -> None:
        if self._gathered:
            self._chunks.append(bytes(self._gathered))
            self._gathered.clear()


def _bytes_of(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    content: bytes = message.get("body", b"")
    return content


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body has more than {max_bytes / 1e6:g} MB")
