"""The batch limit: how many items a batch may hold, learned while serving.

On a GPU sixteen pictures take little longer than one. On a CPU a picture often takes as long in a batch as alone, and a
large batch only makes everybody wait longer. A profile was measured on a quiet machine and knows nothing of the time
that passes between two batches. So under load, when at least as many items wait as a batch may hold, every eighth full
batch tries the next larger or the next smaller size, and the limit moves to where an item takes less device time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.domain.quiet import Quiet

#: Every Nth full batch tries another size.
_TRY_EVERY = 8
#: Minimum batches of a size before it is compared.
_LEAST_BATCHES = 3
#: The weight of the last batch in the mean of its size.
_WEIGHT = 0.2
#: The limit rises if the time per item in the larger batch is below the first factor times the time per item now: an
#: item in a larger batch waits longer, so the gain must be clear. Else it sinks if the time per item in the smaller
#: batch is below the second factor times the time per item now. The gap between the factors keeps the limit from
#: swinging.
_RISE_BELOW, _SINK_BELOW = 0.95, 1.02


@dataclass(slots=True)
class _Measured:
    """The mean device time of an item in batches of one size, in seconds."""

    per_item_s: float = 0.0
    batches: int = 0

    def add(self, per_item_s: float) -> None:
        self.batches += 1
        # A plain mean of the first few batches, then an exponentially weighted one.
        self.per_item_s += max(_WEIGHT, 1 / self.batches) * (per_item_s - self.per_item_s)


class BatchLimit:
    """The batch limit of one checkpoint: a power of two, or ``largest``. Not thread-safe: use it from one event loop.

    Args:
        largest: how many items a batch may ever hold.
        profiled: the limit that the profile suggests, with which this one begins.
        quiet: the checkpoint's quiet time; after enough of it the limit is again that of the profile.
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
            self._index = next(index for index, size in enumerate(self._sizes) if size >= self._begun_with)
        return self._sizes[self._index]

    def next(self, waiting: int) -> int:
        """The limit of the next batch, which may be one that tries another size.

        Args:
            waiting: items in the queue.
        """
        size = self.size
        if waiting < size or self._full_batches % _TRY_EVERY:
            return size
        # The larger and the smaller size take turns.
        step = 1 if self._full_batches // _TRY_EVERY % 2 else -1
        index = self._index + step
        return self._sizes[index] if 0 <= index < len(self._sizes) and self._sizes[index] <= waiting else size

    def learn(self, size: int, device_s: float) -> None:
        """Notes a full batch.

        Args:
            size: items in the batch.
            device_s: seconds from when the device was free and an item waited, until the batch had run.
        """
        if size not in self._measured:
            return
        _ = self.size  # forgets measurements from before a quiet time
        self._learned, self._learned_at = True, self._quiet.seconds
        self._full_batches += 1
        self._measured[size].add(device_s / size)
        self._move()

    def _move(self) -> None:
        here = self._known(self._index)
        if here is None:
            return
        above, below = self._known(self._index + 1), self._known(self._index - 1)
        if above is not None and above < _RISE_BELOW * here:
            self._index += 1
        elif below is not None and below < _SINK_BELOW * here:
            self._index -= 1

    def _known(self, index: int) -> float | None:
        """The device time of an item in batches of one of the sizes, or None while too few were measured."""
        if not 0 <= index < len(self._sizes):
            return None
        measured = self._measured[self._sizes[index]]
        return measured.per_item_s if measured.batches >= _LEAST_BATCHES else None

    def _forget(self) -> None:
        self._measured = {size: _Measured() for size in self._sizes}
        # From 1, so that the first batch tries nothing.
        self._full_batches, self._index, self._begun_with, self._learned = 1, 0, 0, False
        self._learned_at = self._quiet.seconds
