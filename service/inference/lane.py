"""A lane: a few places, and the memory that those who have them hold together."""

from __future__ import annotations

import asyncio
from collections import deque


class Lane:
    """A number of places, and of bytes that those in them hold together. A free place goes to the caller who has the
    fewest; of these to the one who has waited longest, first come, first served.

    Args:
        width: how many places.
        most_held: bytes. A picture that needs more goes alone.
        most_late: how many pictures that gave their place away may go on at once.
    """

    def __init__(self, width: int, most_held: int, most_late: int) -> None:
        self._free = width
        self._late_free = most_late
        self._held = 0
        self._most_held = most_held
        self._places: dict[str, int] = {}
        """How many places callers have."""
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}

    async def enter(self, held: int, caller: str) -> None:
        """Waits for a place. ``leave`` must follow."""
        if not self._waiting and self._fits(held):
            self._take(held, caller)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append((held, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(held, caller)
            else:
                self._give_up(caller, (held, turn))
            raise

    def leave(self, held: int, caller: str, *, place: bool = True) -> None:
        """Gives bytes back, and the place too unless that was done."""
        self._held -= held
        if place:
            self._vacate(caller)
        else:
            self._late_free += 1
        self._next()

    def step_aside(self, caller: str) -> bool:
        """Gives a place to the next picture, while the one in it goes on. False if too many do already."""
        if not self._late_free:
            return False
        self._late_free -= 1
        self._vacate(caller)
        self._next()
        return True

    def _fits(self, held: int) -> bool:
        return self._free > 0 and (self._held + held <= self._most_held or not self._held)

    def _take(self, held: int, caller: str) -> None:
        self._free -= 1
        self._held += held
        self._places[caller] = self._places.get(caller, 0) + 1

    def _vacate(self, caller: str) -> None:
        self._free += 1
        left = self._places.pop(caller) - 1
        if left:
            self._places[caller] = left

    def _next(self) -> None:
        while self._free > 0 and self._waiting:
            caller = min(self._waiting, key=lambda name: self._places.get(name, 0))
            waiting = self._waiting[caller]
            held, turn = waiting[0]
            if not self._fits(held):
                return
            # Behind the others, if more of its pictures wait.
            del self._waiting[caller]
            waiting.popleft()
            if waiting:
                self._waiting[caller] = waiting
            if not turn.done():
                self._take(held, caller)
                turn.set_result(None)

    def _give_up(self, caller: str, entry: tuple[int, asyncio.Future[None]]) -> None:
        """Forgets a picture that waits no more, unless it was passed over already."""
        waiting = self._waiting.get(caller)
        if waiting is not None and entry in waiting:
            waiting.remove(entry)
            if not waiting:
                del self._waiting[caller]
        self._next()
