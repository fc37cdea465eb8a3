"""Batch buckets: the few batch sizes that a network is prepared for, and how they shrink when memory runs out.

A CUDA graph has one batch size. With one for each of 1, 2, 4 ... and the largest, a batch is padded to less than twice
its size, and a handful of graphs serves them all.
"""

from __future__ import annotations

from bisect import bisect_left

from service.domain.errors import OutOfDeviceMemoryError


def powers_up_to(largest: int) -> tuple[int, ...]:
    """1, 2, 4 ... and ``largest`` itself, which need be no power of two."""
    return (*(1 << n for n in range((largest - 1).bit_length())), largest)


class Buckets:
    """The batch sizes of one checkpoint.

    Args:
        largest: pictures in the largest bucket, at least 1.
    """

    def __init__(self, largest: int) -> None:
        self.sizes = powers_up_to(largest)
        self.out_of_memory = 0
        """How often a bucket did not fit."""

    @property
    def largest(self) -> int:
        """The most pictures that one forward pass takes now."""
        return self.sizes[-1]

    def holding(self, pictures: int) -> int:
        """The smallest bucket for that many pictures, of which there are ``largest`` at most."""
        return self.sizes[bisect_left(self.sizes, pictures)]

    def halve(self, bucket: int) -> None:
        """Lowers the largest bucket, for good, to half of one that did not fit.

        For good, since whatever took the memory is likely to stay, and every new attempt costs the callers that wait.

        Raises:
            OutOfDeviceMemoryError: that was a bucket of one picture.
        """
        self.out_of_memory += 1
        if bucket == 1:
            raise OutOfDeviceMemoryError("a single picture does")
        self.sizes = powers_up_to(bucket // 2)
