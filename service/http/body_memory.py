"""The memory that the bodies of requests take in this process, and its limit.

A body takes what has come of it, not what it announces: clients that announce much and send little take no room from
others. Where the room runs out, bodies that have stopped moving give up theirs first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from service.domain.errors import OverloadedError

#: Bodies of at most so many bytes may fill the whole limit, larger ones ``_LARGE_SHARE`` of it: large bodies that wait
#: for their answers must not keep small ones out.
SMALL = 64 * 1024
_LARGE_SHARE = 0.75
#: A body that is arriving moves if it gains ``_STEP`` bytes in ``_STALLED_S``. Those that do not are given up where
#: others need their room.
_STEP, _STALLED_S = 64 * 1024, 2.0
#: After this time a client that was refused may send its body again.
_RETRY_AFTER_S = 1.0


class BodyMemory:
    """The rooms of all bodies. Not thread-safe: use it from one event loop.

    Args:
        limit: bytes that all bodies together may take.
        clock: seconds, monotonic.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.held = 0
        self.clock = clock
        self.arriving: dict[Room, None] = {}
        self._large_limit = int(_LARGE_SHARE * limit)

    def check(self, size: int) -> None:
        """Refuses a body by the size that it announces, before it is read.

        Raises:
            OverloadedError: there is no room for it now.
        """
        if size > SMALL and self.held + size > self._large_limit:
            self._make_room(size)

    def resized(self, room: Room, size: int) -> None:
        """Gives a room another size.

        Raises:
            OverloadedError: there is not so much room; the room keeps its size.
        """
        more = size - room.size
        limit = self.limit if size <= SMALL else self._large_limit
        if more > 0 and self.held + more > limit:
            self._make_room(more, limit, but=room)
        self.held += more
        room.size = size

    def _make_room(self, more: int, limit: int | None = None, but: Room | None = None) -> None:
        """Ends bodies that have stopped moving until there is room."""
        limit = self._large_limit if limit is None else limit
        before = self.clock() - _STALLED_S
        stalled = [room for room in self.arriving if room.size and room.moved_at < before and room is not but]
        could_be_free = sum(room.size for room in stalled)
        if self.held - could_be_free + more <= limit:
            for room in sorted(stalled, key=lambda room: room.moved_at):
                room.give_up()
                if self.held + more <= limit:
                    return
        raise OverloadedError(
            f"the bodies of other requests take the {self.limit / 1e6:g} MB that there are for bodies; send it again",
            _RETRY_AFTER_S,
        )


class Room:
    """The memory that one body takes."""

    __slots__ = ("_end", "_memory", "_moved", "moved_at", "size")
    _end: Callable[[], None]
    _moved: int
    moved_at: float
    """When it last gained a step."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.size = 0

    def resize(self, size: int) -> None:
        """Takes more of the memory, or gives back what is not needed any more.

        Raises:
            OverloadedError: there is not so much room.
        """
        self._memory.resized(self, size)

    def take_first(self, size: int) -> None:
        """``resize`` for a room that has nothing yet: the path of every small body.

        Raises:
            OverloadedError: there is not so much room.
        """
        memory = self._memory
        held = memory.held + size
        if size <= SMALL and held <= memory.limit:
            memory.held = held
            self.size = size
        else:
            memory.resized(self, size)

    def arrives(self, end: Callable[[], None]) -> None:
        """Says that the body is arriving in pieces.

        Args:
            end: ends the upload, because it has stopped moving and others need its room.
        """
        self._end, self._moved = end, 0
        self.moved_at = self._memory.clock()
        self._memory.arriving[self] = None

    def grow(self, size: int) -> None:
        """``resize`` for a body that is arriving.

        Raises:
            OverloadedError: there is not so much room.
        """
        self._memory.resized(self, size)
        if size >= self._moved + _STEP:
            self._moved, self.moved_at = size, self._memory.clock()

    def arrived(self) -> None:
        """Says that nothing more comes."""
        self._memory.arriving.pop(self, None)

    def give_up(self) -> None:
        """Ends the upload and frees the room."""
        self.arrived()
        self.free()
        self._end()

    def free(self) -> None:
        """Gives all of it back."""
        self._memory.held -= self.size
        self.size = 0
