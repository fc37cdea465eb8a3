"""A lane: a few places, and the memory that those who have them hold together."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar


class Place:
    """The place of one thing in a lane, from when it comes until it is done.

    Args:
        held: bytes that it holds.
        caller: whose it is.
    """

    def __init__(self, held: int, caller: str) -> None:
        self.held, self.caller = held, caller
        self.aside = False
        """Whether it gave its place to another one and goes on."""


AnyPlace = TypeVar("AnyPlace", bound=Place)


class Lane(Generic[AnyPlace]):
    """A number of places, and of bytes that those in them hold together. A free place goes to the caller who has the
    fewest; of these to the one who has waited longest, first come, first served.

    Thread-safe: a thread that is done passes its place on itself. If that were the event loop's business, a core would
    idle until the loop has time.

    Args:
        width: how many places.
        most_held: bytes. What needs more goes alone.
        most_late: how many things that gave their place away may go on at once.
    """

    def __init__(self, width: int, most_held: int, most_late: int) -> None:
        self._lock = Lock()
        self._free = width
        self._late_free = most_late
        self._held = 0
        self._most_held = most_held
        self._places: dict[str, int] = {}
        """How many places callers have."""
        self._waiting: dict[str, deque[AnyPlace]] = {}

    def enter(self, place: AnyPlace) -> bool:
        """Lets something begin at once, or wait for its turn. ``leave`` must follow once it has begun.

        Returns:
            whether it begins at once. Else one of the methods below returns it when its turn has come.
        """
        with self._lock:
            if self._waiting or not self._fits(place.held):
                self._waiting.setdefault(place.caller, deque()).append(place)
                return False
            self._take(place)
            return True

    def leave(self, place: AnyPlace) -> list[AnyPlace]:
        """Gives back what a thing that has begun has of the lane: it is done. Returns those whose turn has come."""
        with self._lock:
            self._held -= place.held
            if place.aside:
                self._late_free += 1
            else:
                self._vacate(place.caller)
                # It has none any more that it could give away.
                place.aside = True
            return self._next()

    def step_aside(self, place: AnyPlace) -> list[AnyPlace]:
        """Gives a place away, while the thing that has it goes on; but not if too many do already. Returns those whose
        turn has come."""
        with self._lock:
            if place.aside or not self._late_free:
                return []
            place.aside = True
            self._late_free -= 1
            self._vacate(place.caller)
            return self._next()

    def give_up(self, place: AnyPlace) -> list[AnyPlace] | None:
        """Forgets a thing that waits. Returns those whose turn has come; None if its own has come already."""
        with self._lock:
            waiting = self._waiting.get(place.caller)
            if waiting is None or place not in waiting:
                return None
            waiting.remove(place)
            if not waiting:
                del self._waiting[place.caller]
            return self._next()

    def _fits(self, held: int) -> bool:
        return self._free > 0 and (self._held + held <= self._most_held or not self._held)

    def _take(self, place: AnyPlace) -> None:
        self._free -= 1
        self._held += place.held
        self._places[place.caller] = self._places.get(place.caller, 0) + 1

    def _vacate(self, caller: str) -> None:
        self._free += 1
        left = self._places.pop(caller) - 1
        if left:
            self._places[caller] = left

    def _next(self) -> list[AnyPlace]:
        """Takes places for those whose turn has come."""
        found: list[AnyPlace] = []
        while self._free > 0 and self._waiting:
            caller = min(self._waiting, key=lambda name: self._places.get(name, 0))
            waiting = self._waiting[caller]
            if not self._fits(waiting[0].held):
                break
            place = waiting.popleft()
            # Behind the others, if more of its things wait.
            del self._waiting[caller]
            if waiting:
                self._waiting[caller] = waiting
            self._take(place)
            found.append(place)
        return found
