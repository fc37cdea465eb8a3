"""Encoded bytes -> the network's input: small pictures on the event loop, all others in threads."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.images.pictures import TooManyPartsError, TooManyPixelsError
from models.images.preprocess import Preprocess, picture_to_crop

#: A picture within both limits is decoded on the event loop, in a third of a millisecond, unless it has more parts
#: (scans, segments, chunks, runs) than an ordinary file.
_SMALL_BYTES = 4_096
_SMALL_PIXELS = 128 * 128

Crop: TypeAlias = npt.NDArray[np.uint8]


def is_small(encoded_bytes: int) -> bool:
    """Whether a file of this size may be a small picture, for which ``decode_small`` is tried first."""
    return encoded_bytes <= _SMALL_BYTES


def decode_small(image: bytes, preprocess: Preprocess, max_pixels: int) -> Crop | None:
    """Decodes a small picture at once, which is faster than handing it to a thread: a digit or a thumbnail. Returns
    None for every other picture, also for a small file of many pixels or scans."""
    if not is_small(len(image)):
        return None
    try:
        return picture_to_crop(image, preprocess, max_pixels=min(_SMALL_PIXELS, max_pixels), quick=True)
    except (TooManyPixelsError, TooManyPartsError):
        return None


def decode(image: bytes, preprocess: Preprocess, max_pixels: int) -> Crop:
    """Decodes any picture. Raises what ``preprocess.picture_to_crop`` raises."""
    return picture_to_crop(image, preprocess, max_pixels=max_pixels)
