"""Encoded bytes -> the network's input: small pictures on the event loop, all others in the predictor's threads. Also
the pictures that are not queued yet, because they wait for a load or are being decoded."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from models.images.pictures import TooManyPartsError, TooManyPixelsError
from models.images.preprocess import Preprocess, picture_to_crop

#: A picture within both limits is decoded on the event loop, in a third of a millisecond, unless it has more parts
#: (scans, segments, chunks, runs) than an ordinary file.
_SMALL_BYTES = 4_096
_SMALL_PIXELS = 128 * 128

Crop: TypeAlias = npt.NDArray[np.uint8]


def decode_small(image: bytes, preprocess: Preprocess, max_pixels: int) -> Crop | None:
    """Decodes a small picture at once, which is faster than handing it to a thread: a digit or a thumbnail. Returns
    None for every other picture, also for a small file of many pixels or scans."""
    if len(image) > _SMALL_BYTES:
        return None
    try:
        return picture_to_crop(image, preprocess, max_pixels=min(_SMALL_PIXELS, max_pixels), quick=True)
    except (TooManyPixelsError, TooManyPartsError):
        return None


def decode(image: bytes, preprocess: Preprocess, max_pixels: int) -> Crop:
    """Decodes any picture. Raises what ``preprocess.picture_to_crop`` raises."""
    return picture_to_crop(image, preprocess, max_pixels=max_pixels)


class Arrival(NamedTuple):
    """A picture that is not queued yet."""

    deadline: float
    since: float
    size: int
    """Encoded bytes."""


class Arriving:
    """The pictures of one checkpoint that are not queued yet."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self.size = 0
        """Encoded bytes of all of them."""

    def __len__(self) -> int:
        return len(self._arrivals)

    def begin(self, deadline: float, since: float, size: int) -> Arrival:
        """Adds a picture. Always call ``end`` afterwards."""
        arrival = Arrival(deadline, since, size)
        self._arrivals.append(arrival)
        self.size += size
        return arrival

    def end(self, arrival: Arrival) -> None:
        """Removes a picture: it is queued now, or never will be."""
        self._arrivals.remove(arrival)
        self.size -= arrival.size

    def ahead_of(self, deadline: float) -> int:
        """How many of them will go before a picture with that deadline."""
        return sum(arrival.deadline <= deadline for arrival in self._arrivals)

    def oldest_s(self, now: float) -> float:
        """Seconds since the first of them arrived; 0 if there are none. May be read from another thread."""
        return max((now - arrival.since for arrival in list(self._arrivals)), default=0.0)
