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
#: The short sides of Szegedy 2014, over its first.
_SCALES = (1, 288 / 256, 320 / 256, 352 / 256)


class Crops(NamedTuple):
    """What a network sees of one picture."""

    pixels: Bytes
    """(M, side, side, channels); crops that fall together are here once."""
    weights: npt.NDArray[np.float32]
    """(M,), of each one's answer in the mean; their sum is 1."""


def take(picture: Image.Image, preprocess: Preprocess, scheme: Scheme) -> Crops:
    """The crops of a picture that was decoded for ``decoded_as``.

    ``single`` is what serving sees. ``10`` (Krizhevsky 2012, section 4.1): of the fitted picture's middle square the
    four corners and the centre, and each mirrored. ``144`` (Szegedy 2014, section 7): at four scales the left, middle
    and right (or upper, middle, lower) square; of each the four corners, the centre, and all of it scaled to the crop;
    and each mirrored.

    The papers crop 224 pixels of 256, 288, 320 and 352; here the sizes keep their ratios to the checkpoint's own, and
    are enlarged and padded as its crop is. One that is served the whole picture (``resize`` equals ``crop``, as for
    CIFAR-10) leaves no room for corners: it is shown the picture at 256/224 of that size instead, so that a crop hides
    as much as it does in the papers. For 144 crops a picture that is otherwise warped keeps its aspect, without which
    the three squares would be one. Ink is not mirrored: a mirrored sign is another one, or none.
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
    # Not torchvision's TenCrop: it would mirror crops before they are enlarged, and the enlarged ones would then differ
    # from mirror images of each other in the last bit.
    return Crops(np.concatenate([stacked, stacked[:, :, ::-1]]), np.tile(weights / 2, 2).astype(np.float32))


@cache
def _five_crop(side: int) -> Callable[[Image.Image], tuple[Image.Image, ...]]:
    """torchvision's FiveCrop: picture -> its four corners and its centre, squares of ``side`` pixels.

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
    """What a picture is to be decoded for: the largest scale that crops are taken at."""
    return preprocess if scheme == "single" else replace(preprocess, resize=_sides(preprocess, scheme)[-1])


def crops_in(preprocess: Preprocess, scheme: Scheme) -> int:
    """How many crops a picture's answer is the mean of."""
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
    """The squares of the fitted picture that crops are cut out of, at each scale, and how often each counts: of a
    picture that is nearly square itself, two or three squares fall together."""
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
