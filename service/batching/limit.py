"""The batch limit: how many pictures a batch may hold, found out while serving.

On a GPU sixteen pictures take little longer than one; on a CPU a picture often takes as long in a batch as alone, and a
large batch only keeps the device from everybody else. What a profile says of that is one look at a quiet machine, and
knows nothing of the time that passes between two batches. So under load, when as many pictures wait as a batch may
hold, every eighth batch is as large as the next limit above or below, and the limit moves to where a picture takes less
time of the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.domain.quiet import Quiet

#: One in so many batches as large as the limit tries another size.
_TRY_EVERY = 8
#: Batches of a size that are measured before it is compared with another.
_LEAST_BATCHES = 3
#: What the last batch weighs in the mean of its size.
_WEIGHT = 0.2
#: A picture must take so much less time in larger batches for the limit to rise, since everybody in a larger batch
#: waits for all of it; and at most so much more in smaller ones for it to sink. The space between keeps it from
#: swinging.
_RISE_BELOW, _SINK_BELOW = 0.95, 1.02


@dataclass(slots=True)
class _Measured:
    """The device time of a picture in batches of one size, in seconds."""

    per_picture_s: float = 0.0
    batches: int = 0

    def add(self, per_picture_s: float) -> None:
        self.batches += 1
        # A plain mean at first, which then moves.
        self.per_picture_s += max(_WEIGHT, 1 / self.batches) * (per_picture_s - self.per_picture_s)


class BatchLimit:
    """The batch limit of one checkpoint. Lives on one event loop.

    Args:
        largest: the most pictures that a batch may ever hold.
        profiled: the limit that the profile suggests, which is where it begins.
        quiet: of the checkpoint; after a quiet time the limit is the profile's again.
    """

    def __init__(self, largest: int, profiled: Callable[[], int], quiet: Quiet | None = None) -> None:
        self._sizes = sorted({1 << n for n in range(largest.bit_length())} | {largest})
        self._profiled = profiled
        self._quiet = quiet or Quiet()
        self._begun_with = 0
        self._forget()

    @property
    def size(self) -> int:
        """The limit now."""
        if self._learned and not self._quiet.kept(self._learned_at):
            self._forget()
        if not self._learned and self._profiled() != self._begun_with:
            self._begun_with = self._profiled()
            self._place = next(place for place, size in enumerate(self._sizes) if size >= self._begun_with)
        return self._sizes[self._place]

    def next(self, waiting: int) -> int:
        """The limit of the next batch, which may be a try.

        Args:
            waiting: pictures in the queue.
        """
        size = self.size
        if waiting < size or self._full_batches % _TRY_EVERY:
            return size
        # Larger ones and smaller ones by turns.
        step = 1 if self._full_batches // _TRY_EVERY % 2 else -1
        place = self._place + step
        return self._sizes[place] if 0 <= place < len(self._sizes) and self._sizes[place] <= waiting else size

    def learn(self, size: int, device_s: float) -> None:
        """Takes a batch into account that was as large as it might be, while pictures waited for it.

        Args:
            size: pictures in it.
            device_s: from when the device was free and a picture waited, until the batch was through.
        """
        if size not in self._measured:
            return
        _ = self.size  # what is to be forgotten goes before
        self._learned, self._learned_at = True, self._quiet.seconds
        self._full_batches += 1
        self._measured[size].add(device_s / size)
        self._move()

    def _move(self) -> None:
        here = self._known(self._place)
        if here is None:
            return
        above, below = self._known(self._place + 1), self._known(self._place - 1)
        if above is not None and above < _RISE_BELOW * here:
            self._place += 1
        elif below is not None and below < _SINK_BELOW * here:
            self._place -= 1

    def _known(self, place: int) -> float | None:
        """The device time of a picture at a place among the sizes; None if too little is known of it."""
        if not 0 <= place < len(self._sizes):
            return None
        measured = self._measured[self._sizes[place]]
        return measured.per_picture_s if measured.batches >= _LEAST_BATCHES else None

    def _forget(self) -> None:
        self._measured = {size: _Measured() for size in self._sizes}
        self._full_batches, self._place, self._begun_with, self._learned = 1, 0, 0, False
        self._learned_at = self._quiet.seconds
