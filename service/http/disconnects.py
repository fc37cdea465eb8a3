"""A client that goes away frees its place: the request's task is cancelled, and with it its place in the queue."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

#: A request that is answered within so long is not watched: it frees its place anyway, and a watch would cost it
#: as much as its answer.
_AFTER_S = 0.03


class Watch:
    """Cancels the task in which it is used when the client disconnects. The body must have been read.

    ``gone`` tells that cancellation from others, which are not caught.
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
            # Somebody else may have cancelled it too.
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
