"""The crops of a picture whose answers are averaged: one as in serving, AlexNet's ten, or GoogLeNet's 144."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.data.arrays import Bytes
from models.data.errors import MissingTorchvisionError
from models.images.preprocess import Preprocess, centre, crop, finished, fitted

Scheme = Literal["single", "10", "144"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
#: Short side over crop in both papers.
_RATIO = 256 / 224
#: The four short sides of Szegedy 2014, over the first of them.
_SCALES = (1, 288 / 256, 320 / 256, 352 / 256)


class Crops(NamedTuple):
    """The crops of one picture."""

    pixels: Bytes
    """(M, side, side, channels). Squares that fall together are cut once, with more weight."""
    weights: npt.NDArray[np.float32]
    """(M,): the share of each crop's answer in the mean; their sum is 1."""


def take(picture: Image.Image, preprocess: Preprocess, scheme: Scheme) -> Crops:
    """Cuts the crops out of a picture that was decoded for ``decoded_as``.

    - ``single``: the crop that serving sees.
    - ``10`` (Krizhevsky 2012, section 4.1): the four corners and the centre of the fitted picture's middle square, and
      the mirror image of each.
    - ``144`` (Szegedy 2014, section 7): at each of four scales, the left, middle and right (or upper, middle and lower)
      square; of each square the four corners, the centre and the whole square scaled to the crop; and the mirror image
      of each.

    The papers cut crops of 224 pixels out of 256, 288, 320 and 352. Here the sizes keep these ratios to the
    checkpoint's own, and crops are enlarged and padded as the checkpoint's crop is.

    Exceptions: if serving sees the whole picture (``resize`` equals ``crop``, as for CIFAR-10), there is no room for
    corners; the picture is then resized to 256/224 of that size, so that a crop hides as much as in the papers. A
    picture that is warped in serving keeps its aspect for 144 crops, since its three squares would otherwise be one.
    Digits are not mirrored: a mirrored digit is another sign, or none.

    Raises:
        MissingTorchvisionError: 10 or 144 crops are asked for, and torchvision is not installed.
    """
    if scheme == "single":
        return Crops(crop(picture, preprocess)[np.newaxis], np.ones(1, np.float32))
    side = preprocess.crop
    corners_and_centre = _five_crop(side)
    pixels: list[Bytes] = []
    times: list[int] = []
    for square, count in _squares(picture, preprocess, scheme):
        crops = list(corners_and_centre(square))
        if scheme == "144":
            crops.append(square.resize((side, side), Image.Resampling.BILINEAR))
        pixels += [np.asarray(each).reshape(side, side, preprocess.channels) for each in crops]
        times += [count] * len(crops)
    stacked, weights = finished(np.stack(pixels), preprocess), (np.array(times) / sum(times)).astype(np.float32)
    if not _mirrors(preprocess):
        return Crops(stacked, weights)
    # Not torchvision's TenCrop, which would mirror crops before they are enlarged: Pillow's rounding then makes the
    # enlarged crops differ a little from mirror images.
    return Crops(np.concatenate([stacked, stacked[:, :, ::-1]]), np.tile(weights / 2, 2).astype(np.float32))


@cache
def _five_crop(side: int) -> Callable[[Image.Image], tuple[Image.Image, ...]]:
    """torchvision's FiveCrop: a picture -> its four corners and its centre, squares of ``side`` pixels.

    Raises:
        MissingTorchvisionError: torchvision is not installed.
    """
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingTorchvisionError("10 and 144 crops are cut with") from error
    found: Callable[[Image.Image], tuple[Image.Image, ...]] = v2.FiveCrop(side)
    return found


def decoded_as(preprocess: Preprocess, scheme: Scheme) -> Preprocess:
    """The preprocessing to decode a picture for: that with the largest size that crops are cut at."""
    return preprocess if scheme == "single" else replace(preprocess, resize=_sides(preprocess, scheme)[-1])


def crops_in(preprocess: Preprocess, scheme: Scheme) -> int:
    """The number of crops that a picture's answer is the mean of."""
    if scheme == "single":
        return 1
    count = {"10": 5, "144": 72}[scheme]
    return 2 * count if _mirrors(preprocess) else count


def _mirrors(preprocess: Preprocess) -> bool:
    return not preprocess.ink_on_light


def _sides(preprocess: Preprocess, scheme: Scheme) -> list[int]:
    """The sizes that pictures are resized to."""
    if scheme == "single":
        return [preprocess.resize]
    first = preprocess.resize if preprocess.resize > preprocess.crop else preprocess.crop * _RATIO
    return [round(first * scale) for scale in (_SCALES if scheme == "144" else _SCALES[:1])]


def _squares(picture: Image.Image, preprocess: Preprocess, scheme: Scheme) -> Iterator[tuple[Image.Image, int]]:
    """Yields the squares that crops are cut out of, at each scale, and how often each counts: two or three squares of a
    picture that is nearly square fall together."""
    if scheme == "144" and preprocess.fit == "warp":
        preprocess = replace(preprocess, fit="short side")
    for side in _sides(preprocess, scheme):
        whole = fitted(picture, replace(preprocess, resize=side))
        boxes = [centre(whole.size, side)]
        if scheme == "144":
            width, height = whole.size
            boxes += [(0, 0, side, side), (width - side, height - side, width, height)]
        for box, count in Counter(boxes).items():
            yield whole.crop(box), count
