"""The places of a queue, by caller: one caller cannot fill it, so that others find room.

A caller may hold at most eight times as many places as are free: dynamic thresholds (Choudhury and Hahne, 1998), by
which switches share their buffers. A lone caller gets eight ninths of the queue. Of N greedy callers each gets
8 / (8 N + 1), and one place in 8 N + 1 stays free for whoever comes next.
"""

from __future__ import annotations

from service.domain.errors import OverloadedError

#: How many places a caller may hold for each that is free.
_FOR_EACH_FREE = 8


class Places:
    """Who holds places of one queue, and how many bytes. Not thread-safe: use it from one event loop.

    Args:
        places: how many there are.
        size: how many bytes may be held together.
    """

    def __init__(self, places: int, size: int) -> None:
        self._places = places
        self._size = size
        self._held: dict[str, tuple[int, int]] = {}

    def check(self, caller: str, taken: int, taken_bytes: int, size: int, per_item_s: float) -> None:
        """Checks that a caller's picture is within its share.

        Args:
            caller: who asks.
            taken: places that are taken, by all callers.
            taken_bytes: the bytes of the pictures there.
            size: bytes of the picture.
            per_item_s: seconds until a place is free, about.

        Raises:
            OverloadedError: the caller holds too many places or bytes already.
        """
        held = self._held.get(caller)
        if held is None or not taken:
            # An empty queue takes a picture of any size.
            return
        places, held_bytes = held
        share = _FOR_EACH_FREE * (self._places - taken)
        if places >= share:
            raise OverloadedError(
                f"{places} of your pictures are waiting, and the other places are kept for other callers",
                retry_after_s=((places - share) // (_FOR_EACH_FREE + 1) + 1) * per_item_s or 1.0,
            )
        share_bytes = _FOR_EACH_FREE * (self._size - taken_bytes)
        if held_bytes + size > share_bytes:
            raise OverloadedError(
                f"your waiting pictures take {held_bytes / 1e6:.0f} MB, and the rest is kept for other callers",
                retry_after_s=places * per_item_s or 1.0,
            )

    def take(self, caller: str, size: int) -> None:
        """A caller's picture takes a place. ``give_back`` must follow."""
        places, held_bytes = self._held.get(caller, (0, 0))
        self._held[caller] = places + 1, held_bytes + size

    def give_back(self, caller: str, size: int) -> None:
        """A caller's picture needs its place no more: it was answered or given up."""
        places, held_bytes = self._held[caller]
        if places == 1:
            del self._held[caller]
        else:
            self._held[caller] = places - 1, held_bytes - size
