"""A few at once of each caller: nobody's pictures fill the queue of the threads that decode."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FewAtOnce:
    """Lets each caller do a few things at once; the rest waits, first come, first served. Not thread-safe.

    Args:
        most: how many at once. As many as there are threads keep these busy for a lone caller.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._doing: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def of(self, caller: str) -> AsyncIterator[None]:
        """Waits for the caller's turn, and does one thing of it while the block runs."""
        doing = self._doing.get(caller, 0)
        if doing < self._most:
            self._doing[caller] = doing + 1
        else:
            await self._turn(caller)
        try:
            yield
        finally:
            self._over(caller)

    async def _turn(self, caller: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # The turn may have been passed on in the moment in which this was cancelled.
            if turn.done() and not turn.cancelled():
                self._over(caller)
            raise

    def _over(self, caller: str) -> None:
        """Passes the place of one thing on, or gives it up."""
        waiting = self._waiting.get(caller)
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._waiting.pop(caller, None)
        doing = self._doing.pop(caller) - 1
        if doing:
            self._doing[caller] = doing
