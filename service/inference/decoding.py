"""Encoded bytes -> the network's input: small pictures on the event loop, all others in threads (``decoders.py``)."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.images.cost import UNBOUNDED, Price, check
from models.images.errors import TooManyPartsError, TooManyPixelsError, TooMuchWorkError
from models.images.outline import Outline
from models.images.pictures import Check, anything
from models.images.preprocess import Preprocess, picture_to_crop

#: Only a file of so few bytes is decoded on the event loop.
_SMALL_BYTES = 4_096
#: And only if it takes no longer than this, from its bytes to the crop: handing it to a thread takes as long.
_AT_ONCE = Price(0.00033, 4_000_000)
#: Of these kinds, a picture of so few samples and pixels, which is scaled to a side of this at most, is within
#: ``_AT_ONCE`` whatever its bytes are.
_PLAIN, _TINY, _TINY_SIDE = ("png", "jpeg"), 4_096, 64
#: The header of a PNG whose sides have less than 256 pixels, from the length on, and its last fields: 8 bits of grey,
#: not interlaced.
_PNG_HEAD, _PNG_GREY = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0", b"\x08\0\0\0\0"

Crop: TypeAlias = npt.NDArray[np.uint8]


def is_small(encoded_bytes: int) -> bool:
    """Whether a file of this size may be a small picture, for which ``decode_small`` is tried first."""
    return encoded_bytes <= _SMALL_BYTES


def decode_small(image: bytes, preprocess: Preprocess, max_pixels: int) -> Crop | None:
    """Decodes a small picture at once, which is faster than handing it to a thread: a digit or a thumbnail. Returns
    None for every other picture, also for a small file whose price is high, or that has many parts."""
    if not is_small(len(image)):
        return None
    try:
        return picture_to_crop(
            image,
            preprocess,
            max_pixels=max_pixels,
            quick=True,
            check=_at_once(image, preprocess),
        )
    except (TooManyPixelsError, TooManyPartsError, TooMuchWorkError):
        return None


def _at_once(image: bytes, preprocess: Preprocess) -> Check:
    """Checks that a picture does not take too long for the event loop."""
    # Most digits are known as cheap by a few bytes: reading their outline would take as long as scaling them.
    if (
        image[24:29] == _PNG_GREY
        and image.startswith(_PNG_HEAD)
        and image[20:23] == b"\0\0\0"
        and image[19] * image[23] <= _TINY
        and preprocess.resize <= _TINY_SIDE
        and preprocess.fit != "short side"
    ):
        return anything
    return partial(_check_at_once, preprocess)


def _check_at_once(preprocess: Preprocess, outline: Outline) -> None:
    """Raises TooMuchWorkError for a picture that takes too long for the event loop."""
    kind, width, height, _, units, _, _ = outline
    # Nor need others be priced that are as small.
    if not (units <= _TINY and width * height <= _TINY and kind in _PLAIN and preprocess.resize <= _TINY_SIDE) or (
        preprocess.fit == "short side"
    ):
        check(outline, preprocess=preprocess, most=_AT_ONCE)


def decode(image: bytes, preprocess: Preprocess, max_pixels: int, most: Price = UNBOUNDED) -> Crop:
    """Decodes any picture.

    Args:
        image: the encoded picture.
        preprocess: what it is decoded for.
        max_pixels: the limit of width times height.
        most: what decoding may take.

    Raises:
        PictureError: it is refused.
    """
    return picture_to_crop(
        image, preprocess, max_pixels=max_pixels, check=partial(check, preprocess=preprocess, most=most)
    )
