"""Reading a request's bytes: no more than the limit, and no more slowly than a least rate."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.domain.errors import BodyTooLargeError, BodyTooSlowError

#: A body must arrive within ``GRACE_S`` seconds, and each ``LEAST_RATE`` bytes of it allow one second more: Apache's
#: own default (mod_reqtimeout, ``RequestReadTimeout body=20,MinRate=500``).
GRACE_S = 20.0
LEAST_RATE = 500
#: How often the bodies that are still arriving are held against that.
_LOOK_EVERY_S = 0.5
#: A body that is too large is still read to its end, up to this many times the limit, before it is refused: a client
#: that is cut off while it sends often never sees the answer.
_READ_ON = 8
#: Smaller chunks are gathered into larger ones: an object for every few bytes takes many times the body's memory.
_SMALL = 4 * 1024
_GATHERED = 64 * 1024


class Upload(NamedTuple):
    """A body's bytes, in the order in which they came."""

    chunks: list[bytes]
    size: int
    ended: float
    """When the last byte was here, on ``time.monotonic()``."""

    def content(self) -> bytes:
        """The body in one piece, which takes milliseconds for megabytes."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)


class Uploads:
    """The bodies that arrive at one event loop.

    One timer watches all of them, and runs only while there are any: a timer for each request would cost it several
    microseconds.
    """

    def __init__(self) -> None:
        self._due: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, max_bytes: int) -> Upload:
        """Reads a body to its end.

        Raises:
            BodyTooLargeError: it has more than ``max_bytes``.
            BodyTooSlowError: it comes more slowly than it must.
            ClientDisconnect: the client has gone.
        """
        task, started = asyncio.current_task(), time.monotonic()
        assert task is not None
        cancelled_before = task.cancelling()
        self._due[task] = started + GRACE_S
        if self._timer is None:
            self._look_again()
        try:
            message = await receive()
            if message.get("more_body", False):
                return await self._read_on(task, started, message, receive, max_bytes)
        except asyncio.CancelledError:
            if task not in self._overdue or task.uncancel() > cancelled_before:
                raise
            raise BodyTooSlowError(
                f"the body did not end within {time.monotonic() - started:.0f} s; it has {GRACE_S:g} s, and one more "
                f"for each {LEAST_RATE} bytes that have come"
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

    def _look_again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        """Ends the reads that are overdue."""
        now = time.monotonic()
        for task, due in self._due.items():
            if due < now and task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        self._timer = None
        if self._due:
            self._look_again()


class _Chunks:
    """What has come of a body; of one that is too large, only its size."""

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
