"""Cancels the request of a client that disconnects, which frees the places of its pictures in the queue."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from starlette.types import Receive

#: A request is watched once it is this old. Most are answered before, and a watch would cost as much as their answer.
_AFTER_S = 0.03


class Watches:
    """The requests of one event loop whose clients may disconnect.

    One timer begins the watches of all requests that have become old. A timer for each would cost every request several
    microseconds.
    """

    def __init__(self) -> None:
        self._young: dict[Watch, None] = {}
        """In the order in which they came."""
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, receive: Receive) -> Watch:
        """A watch over the task inside the ``with`` block.

        Args:
            receive: ASGI's; the request's body must have been read from it.
        """
        return Watch(self, receive)

    def entered(self, watch: Watch) -> None:
        """Begins the watch once it is old."""
        self._young[watch] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AFTER_S, self._begin_old)

    def left(self, watch: Watch) -> None:
        """Forgets a watch that is over."""
        self._young.pop(watch, None)

    def _begin_old(self) -> None:
        self._timer, now, wait_s = None, time.monotonic(), None
        for watch in list(self._young):
            left_s = watch.since + _AFTER_S - now
            if left_s > _AFTER_S / 4:
                wait_s = left_s
                break
            del self._young[watch]
            watch.begin()
        if wait_s is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin_old)


class Watch:
    """A context manager that cancels the task inside it when the client disconnects.

    It ends that cancellation itself, so that the task goes on after the ``with`` block; ``gone`` says that it happened.
    Cancellations by anybody else pass through.
    """

    __slots__ = ("_all", "_cancelled_before", "_receive", "_task", "_watching", "gone", "since")

    def __init__(self, watches: Watches, receive: Receive) -> None:
        self._all = watches
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None
        self.gone = False

    def __enter__(self) -> Watch:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        self._cancelled_before = task.cancelling()
        self.since = time.monotonic()
        self._all.entered(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        self._all.left(self)
        if self._watching is not None:
            self._watching.cancel()
        if self.gone and isinstance(error, asyncio.CancelledError):
            # The server may have cancelled the task too, and that cancellation must go on.
            return self._task.uncancel() <= self._cancelled_before
        return False

    def begin(self) -> None:
        """Begins to read from the client, who sends nothing but the end of the connection."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()
