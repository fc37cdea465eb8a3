"""The memory for crops: a front writes into it, the device owner copies out of it into a batch.

It is an anonymous file (``memfd_create``), which the front hands over with its socket. It has no name, so nothing is
left of it after a kill, and it does not count against a container's /dev/shm, which Docker limits to 64 MB.
"""

from __future__ import annotations

import fcntl
import heapq
import mmap
import os
import weakref

import numpy as np
import numpy.typing as npt

from models.images.preprocess import Preprocess

#: Slots of a front. That many crops of the largest network take 277 MB, the limit of a queue by default, if ever all
#: are in use; slots that never were take no memory.
SLOTS = 1024
_PAGE = mmap.PAGESIZE


def slot_bytes(largest_crop: int) -> int:
    """The size of a slot: the largest crop in bytes, rounded up to whole pages so that each can be given back."""
    return -(-largest_crop // _PAGE) * _PAGE


class NoSlotError(RuntimeError):
    """All slots are in use."""


class Slots:
    """A front's memory for crops. It lasts until nobody refers to it any more.

    Args:
        size: bytes of a slot, a multiple of the page size.
        count: how many slots.

    Raises:
        ValueError: slots cannot have that size.
        OSError: there is not so much memory.
    """

    def __init__(self, size: int, count: int = SLOTS) -> None:
        if size <= 0 or size % _PAGE:
            raise ValueError(f"slots of {size} bytes are not of whole pages")
        self.size, self.count = size, count
        self.file = os.memfd_create("topfive-crops", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._close_file = weakref.finalize(self, os.close, self.file)
        os.ftruncate(self.file, size * count)
        fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self._memory = mmap.mmap(self.file, size * count)
        self._bytes = np.frombuffer(self._memory, np.uint8).reshape(count, size)
        # The lowest free slot is used first, so that memory which a burst needed can be given back after it.
        self._free = list(range(count))
        self._used = 0
        self._touched = 0
        """All slots from this one on take no memory."""
        self._highest = 0
        """All slots from this one on were free since the last ``trim``."""

    @property
    def used(self) -> int:
        """How many slots are in use."""
        return self._used

    def put(self, crop: npt.NDArray[np.uint8]) -> int:
        """Copies a crop into a free slot, and returns its number. ``free`` must follow.

        Raises:
            NoSlotError: all are in use.
            ValueError: the crop is larger than a slot.
        """
        if not self._free:
            raise NoSlotError
        if crop.nbytes > self.size:
            raise ValueError(f"a crop of {crop.nbytes} bytes does not fit into a slot of {self.size}")
        slot = heapq.heappop(self._free)
        self._used += 1
        self._highest = max(self._highest, slot + 1)
        self._bytes[slot, : crop.nbytes] = crop.reshape(-1)
        return slot

    def free(self, slot: int) -> None:
        """Lets a slot be used again."""
        heapq.heappush(self._free, slot)
        self._used -= 1

    def trim(self) -> None:
        """Gives the memory back of all slots above those that were used since the last call."""
        self._touched = max(self._touched, self._highest)
        if self._touched > self._highest:
            start = self._highest * self.size
            self._memory.madvise(mmap.MADV_REMOVE, start, self._touched * self.size - start)
            self._touched = self._highest
        self._highest = 0 if not self._used else max(set(range(self.count)) - set(self._free)) + 1

    def close(self) -> None:
        """Gives all memory back."""
        del self._bytes
        self._memory.close()
        self._close_file()


class Window:
    """An owner's view of a front's memory. It lasts as long as a crop in it is used, whatever happens to the front.

    Args:
        file: the descriptor that was handed over; it is closed here.
        size: bytes of a slot.
        count: how many slots.

    Raises:
        ValueError: the file is smaller than it is said to be, or may become so: reading beyond its end would kill the
            process.
        OSError: it is no memory, or cannot be read.
    """

    def __init__(self, file: int, size: int, count: int) -> None:
        try:
            if size <= 0 or count <= 0 or os.fstat(file).st_size < size * count:
                raise ValueError(f"the memory for crops has not {count} slots of {size} bytes")
            if not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ValueError("the memory for crops may be cut short")
            memory = mmap.mmap(file, size * count, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        self._bytes = np.frombuffer(memory, np.uint8).reshape(count, size)

    @property
    def size(self) -> int:
        """Bytes of a slot."""
        return int(self._bytes.shape[1])

    def file(self, slot: int, size: int) -> bytes:
        """A copy of the file in a slot.

        Raises:
            ValueError: there is no such slot, or it is too small for so many bytes.
        """
        if not 0 <= slot < len(self._bytes) or not 0 <= size <= self.size:
            raise ValueError(f"slot {slot} of {len(self._bytes)} has no file of {size} bytes")
        return self._bytes[slot, :size].tobytes()

    def crop(self, slot: int, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
        """The crop in a slot, uint8 (side, side, channels). It is not copied: it lasts until the front frees the slot.

        Raises:
            ValueError: there is no such slot, or it is too small for a crop of that kind.
        """
        count, size = self._bytes.shape
        side, channels = preprocess.side, preprocess.channels
        wanted = side * side * channels
        if not 0 <= slot < count or wanted > size:
            raise ValueError(f"slot {slot} of {count} has no crop of {wanted} bytes")
        return self._bytes[slot, :wanted].reshape(side, side, channels)
