"""Reads a request's body, with a size limit and a minimum rate."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.domain.errors import BodyTooLargeError, BodyTooSlowError

#: A body has ``GRACE_S`` seconds to arrive, and one more for each ``LEAST_RATE`` bytes that have come. Apache's default
#: is the same (mod_reqtimeout, ``RequestReadTimeout body=20,MinRate=500``).
GRACE_S = 20.0
LEAST_RATE = 500
#: How often the bodies that are still arriving are checked.
_CHECK_EVERY_S = 0.5
#: A body that is too large is read until it has more than this many times the limit, or ends: a client that is cut off
#: while it sends often never sees the answer.
_READ_ON = 8
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
        """The whole body. Joining its chunks takes milliseconds if they have megabytes."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)


class Uploads:
    """The bodies that are arriving on one event loop.

    One timer watches all of them while there are any. A timer for each would cost every request several microseconds.
    """

    def __init__(self) -> None:
        self._due: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, max_bytes: int) -> Upload:
        """Reads a body to its end.

        Raises:
            BodyTooLargeError: the body has more than ``max_bytes``.
            BodyTooSlowError: the body takes longer than it may.
            ClientDisconnect: the client disconnected before the body's end.
        """
        task, started = asyncio.current_task(), time.monotonic()
        assert task is not None
        cancelled_before = task.cancelling()
        self._due[task] = started + GRACE_S
        if self._timer is None:
            self._check_later()
        try:
            message = await receive()
            if message.get("more_body", False):
                return await self._read_on(task, started, message, receive, max_bytes)
        except asyncio.CancelledError:
            if task not in self._overdue or task.uncancel() > cancelled_before:
                raise
            raise BodyTooSlowError(
                f"the body had not arrived after {time.monotonic() - started:.0f} s; it may take {GRACE_S:g} s, and "
                f"one more for each {LEAST_RATE} bytes of it; send it without pauses"
            ) from None
        finally:
            del self._due[task]
            self._overdue.discard(task)
        content = _bytes_of(message)
        return _checked(Upload([content], len(content), time.monotonic()), max_bytes)

    async def _read_on(
        self, task: asyncio.Task[object], started: float, message: Message, receive: Receive, max_bytes: int
    ) -> Upload:
        chunks = _Chunks(max_bytes)
        while True:
            chunks.add(_bytes_of(message))
            if not message.get("more_body", False) or chunks.size > _READ_ON * max_bytes:
                break
            self._due[task] = started + GRACE_S + chunks.size / LEAST_RATE
            message = await receive()
        return _checked(chunks.upload(), max_bytes)

    def _check_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        """Cancels the reads that have taken too long."""
        now = time.monotonic()
        for task, due in self._due.items():
            if due < now and task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        self._timer = None
        if self._due:
            self._check_later()


class _Chunks:
    """The part of a body that has arrived. Once it is too large, only its size is kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self._gathered = bytearray()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._max_bytes:
            self._chunks.clear()
            self._gathered.clear()
        elif len(chunk) < _SMALL:
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


def _checked(upload: Upload, max_bytes: int) -> Upload:
    if upload.size > max_bytes:
        raise BodyTooLargeError(f"the body has more than {max_bytes / 1e6:g} MB")
    return upload
