"""Batch buckets: the few batch sizes that CUDA graphs are captured for, and how they shrink when memory runs out.

A CUDA graph has one batch size. With a graph for each of 1, 2, 4 ... and the largest size, a batch is padded to less
than twice its pictures, and a handful of graphs serves every size.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import ClassVar

from service.domain.errors import OutOfDeviceMemoryError


def powers_up_to(largest: int) -> tuple[int, ...]:
    """1, 2, 4 ... and ``largest`` itself, which need not be a power of two."""
    return (*(1 << n for n in range((largest - 1).bit_length())), largest)


class Buckets:
    """The batch sizes of one checkpoint.

    Args:
        largest: pictures in the largest bucket, at least 1.
    """

    halvings: ClassVar[int] = 0
    """How often any checkpoint's largest bucket was halved in this process. The count outlives the engines."""

    def __init__(self, largest: int) -> None:
        self.sizes = powers_up_to(largest)
        self.out_of_memory = 0
        """How often a bucket did not fit into memory."""

    @property
    def largest(self) -> int:
        """The most pictures that one forward pass takes now."""
        return self.sizes[-1]

    def holding(self, pictures: int) -> int:
        """The smallest bucket for that many pictures, at most ``largest``."""
        return self.sizes[bisect_left(self.sizes, pictures)]

    def halve(self, bucket: int) -> None:
        """Lowers the largest bucket for good, to half of a bucket that did not fit.

        It is never raised again: whatever took the memory is likely to stay, and each new attempt would delay the
        requests that wait.

        Raises:
            OutOfDeviceMemoryError: the bucket held a single picture.
        """
        self.out_of_memory += 1
        if bucket == 1:
            raise OutOfDeviceMemoryError("a single picture does")
        self.sizes = powers_up_to(bucket // 2)
        Buckets.halvings += 1
