"""Encoded bytes -> the network's input: small pictures where they arrive, all others in the predictor's threads."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from models.images.pictures import TooManyPartsError, TooManyPixelsError
from models.images.preprocess import Preprocess, picture_to_crop

#: A picture within both is decoded on the event loop, in a third of a millisecond, unless it has more parts (scans,
#: segments, chunks, runs) than a plain file.
_SMALL_BYTES = 4_096
_SMALL_PIXELS = 128 * 128

Crop: TypeAlias = npt.NDArray[np.uint8]


def decode_small(image: bytes, preprocess: Preprocess, max_pixels: int) -> Crop | None:
    """Decodes what takes less time than handing it to a thread does: digits and thumbnails. None for everything else,
    a small file of many pixels or many scans above all."""
    if len(image) > _SMALL_BYTES:
        return None
    try:
        return picture_to_crop(image, preprocess, max_pixels=min(_SMALL_PIXELS, max_pixels), quick=True)
    except (TooManyPixelsError, TooManyPartsError):
        return None


def decode(image: bytes, preprocess: Preprocess, max_pixels: int) -> Crop:
    """Decodes any picture; raises as ``preprocess.picture_to_crop`` does."""
    return picture_to_crop(image, preprocess, max_pixels=max_pixels)


class Arrival(NamedTuple):
    """One of them."""

    deadline: float
    since: float
    size: int
    """Bytes, as the client sent them."""


class Arriving:
    """All of one checkpoint's."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self.size = 0
        """Bytes of all of them."""

    def __len__(self) -> int:
        return len(self._arrivals)

    def come(self, deadline: float, since: float, size: int) -> Arrival:
        """A picture begins; it must ``end``, whatever becomes of it."""
        arrival = Arrival(deadline, since, size)
        self._arrivals.append(arrival)
        self.size += size
        return arrival

    def end(self, arrival: Arrival) -> None:
        """It will be queued now, or never."""
        self._arrivals.remove(arrival)
        self.size -= arrival.size

    def ahead_of(self, deadline: float) -> int:
        """How many will go before one with that deadline."""
        return sum(arrival.deadline <= deadline for arrival in self._arrivals)

    def oldest_s(self, now: float) -> float:
        """How long the first has been on its way; 0 if there is none. Another thread may ask."""
        return max((now - arrival.since for arrival in list(self._arrivals)), default=0.0)
