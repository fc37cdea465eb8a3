"""Encoded bytes -> the network's input: small pictures where they arrive, all others in the predictor's threads."""

from __future__ import annotations

from typing import TypeAlias

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
