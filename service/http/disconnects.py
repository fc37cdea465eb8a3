"""Cancels the request of a client that disconnects, which frees the places of its pictures in the queue."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

#: A request is watched once it is this old. Most are answered before, and a watch would cost as much as their answer.
_AFTER_S = 0.03


class Watch:
    """A context manager that cancels the task inside it when the client disconnects.

    It ends that cancellation itself, so that the task goes on after the ``with`` block; ``gone`` says that it happened.
    Cancellations by anybody else pass through.

    Args:
        receive: ASGI's; the request's body must have been read from it.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[object] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.gone = False

    def __enter__(self) -> Watch:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelled_before = self._task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(_AFTER_S, self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self.gone and isinstance(error, asyncio.CancelledError):
            assert self._task is not None
            # The server may have cancelled the task too, and that cancellation must go on.
            return self._task.uncancel() <= self._cancelled_before
        return False

    def _begin(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        assert self._task is not None
        self._task.cancel()
