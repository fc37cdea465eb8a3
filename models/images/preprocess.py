"""Preprocessing: a picture -> the uint8 crop that a checkpoint needs, and the numbers that turn the crop into its
input.

The two steps are separate because a crop is made for one request, in 8 bits, while the engine does the arithmetic for
a whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from models.images.pictures import Check, anything, decode
from models.images.shrink import Box, Shrink

#: If the long side is more than this many times the short side, only the middle of the picture is scaled.
_LONGEST = 16
#: How many times as large as the scaled picture a large one stays when it is made smaller first.
_GAP = 3


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The preprocessing of one checkpoint. The network's input is (crop * scale - mean) / std, with its channels in the
    order of ``colour``."""

    fit: Literal["short side", "warp", "contain"]
    """How the picture is scaled to ``resize``: its short side; both sides, which changes the aspect; or its long side,
    and it is centred on a square of its own border's colour."""
    resize: int
    crop: int
    """The side of the centre crop, in pixels."""
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    pad: int = 0
    """How many pixels of zero are added on every side of the crop."""
    ink_on_light: bool = False
    """Whether a picture with a light border, which is dark ink on light ground, is inverted."""
    enlarge: int = 0
    """The side that the crop is enlarged to, a multiple of ``crop``, for networks trained on enlarged thumbnails; 0:
    the crop is not enlarged."""

    def __post_init__(self) -> None:
        if self.enlarge % self.crop:
            raise ValueError(f"enlarge {self.enlarge} is not a multiple of crop {self.crop}")

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @property
    def side(self) -> int:
        """Height and width of the network's input."""
        return (self.enlarge or self.crop) + 2 * self.pad

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object, which ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocess:
        """Raises TypeError on unknown or missing fields, ValueError on wrong ones."""
        plain = dict(fields)
        for name in ("mean", "std"):
            if name in plain:
                plain[name] = tuple(plain[name])
        return cls(**plain)


def picture_to_crop(
    data: bytes, preprocess: Preprocess, *, max_pixels: int, quick: bool = False, check: Check = anything
) -> npt.NDArray[np.uint8]:
    """Encoded bytes -> crop, uint8 (side, side, channels), RGB or grey.

    Raises:
        PictureError: the bytes are refused, see ``pictures.decode``.
    """
    return crop(decode_for(data, preprocess, max_pixels=max_pixels, quick=quick, check=check), preprocess)


def decode_for(
    data: bytes, preprocess: Preprocess, *, max_pixels: int, quick: bool = False, check: Check = anything
) -> Image.Image:
    """Encoded bytes -> a picture in grey or RGB, for ``crop``. Raises what ``pictures.decode`` raises."""
    # Twice the size that is needed: decoding at a smaller size averages whole blocks of 8 x 8 pixels, and the
    # antialiased resize after it hides the difference only if it still has pixels to average.
    return decode(
        data,
        "L" if preprocess.colour == "grey" else "RGB",
        max_pixels=max_pixels,
        at_least=2 * preprocess.resize,
        needed=partial(shrink_for, preprocess=preprocess),
        quick=quick,
        check=check,
    )


def shrink_for(size: tuple[int, int], preprocess: Preprocess) -> Shrink:
    """How small a picture of that size may be made before ``crop`` scales it: to no less than three times the size that
    it is scaled to, where the difference is not seen (as Pillow's documentation of ``reducing_gap`` says)."""
    width, height = size
    short, long = sorted(size)
    box = (0, 0, width, height)
    least = _GAP * preprocess.resize
    if preprocess.fit == "warp":
        return Shrink(box, max(1, width // least), max(1, height // least))
    if preprocess.fit == "contain":
        times = max(1, long // least)
        return Shrink(box, times, times)
    if long > _GAP * short:
        # The ends of a long picture are cut off in any case.
        kept = min(width, _GAP * short), min(height, _GAP * short)
        left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
        box = (left, top, left + kept[0], top + kept[1])
    times = max(1, short // least)
    return Shrink(box, times, times)


def crop(picture: Image.Image, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """A decoded picture -> crop, uint8 (side, side, channels): resized, ink made light, centre-cropped, enlarged,
    padded."""
    done: npt.NDArray[np.uint8] = finished(cut(picture, preprocess)[np.newaxis], preprocess)[0]
    return done


def cut(picture: Image.Image, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """The first half of ``crop``, up to the centre crop: uint8 (crop, crop, channels). Training changes its result."""
    ground, side = _ground(picture, preprocess), preprocess.crop
    whole = _resized(picture, preprocess, ground.border)
    box = centre(whole.size, side)
    if box != (0, 0, *whole.size):
        pixels = np.asarray(whole.crop(box))
    elif whole is picture and preprocess.colour == "grey" and ground.grey is not None:
        pixels = ground.grey
    else:
        pixels = np.asarray(whole)
    # The bits of 255 - value. Pillow makes its table anew for each picture, which takes longer than decoding a digit.
    return (~pixels if ground.light else pixels).reshape(side, side, preprocess.channels)


def fitted(picture: Image.Image, preprocess: Preprocess) -> Image.Image:
    """A decoded picture, resized and with ink made light, which crops are cut out of."""
    ground = _ground(picture, preprocess)
    picture = _resized(picture, preprocess, ground.border)
    return ImageOps.invert(picture) if ground.light else picture


class _Ground(NamedTuple):
    """What a picture's ink is on, by its outermost pixels."""

    border: int = 0
    """Their median brightness; 0 if the preprocessing does not need it."""
    light: bool = False
    """Whether the picture is to be inverted."""
    grey: npt.NDArray[np.uint8] | None = None
    """The brightness of all pixels, (height, width), if it was needed."""


def _ground(picture: Image.Image, preprocess: Preprocess) -> _Ground:
    if preprocess.fit != "contain" and not preprocess.ink_on_light:
        return _Ground()
    grey = np.asarray(picture if picture.mode == "L" else picture.convert("L"))
    border = _border(grey)
    return _Ground(border, preprocess.ink_on_light and border > 127, grey)


def scaling(size: tuple[int, int], preprocess: Preprocess) -> tuple[Box | None, tuple[int, int]]:
    """How a picture is scaled where ``fit`` is "short side" or "warp": the box that is cut out of it first, None if all
    of it is scaled, and the size that it is scaled to."""
    target, (width, height) = preprocess.resize, size
    if preprocess.fit == "warp":
        return None, (target, target)
    box = None
    if max(size) > _LONGEST * min(size):
        # A picture of 1 x 80,000 pixels would take 16 GB when scaled, and the crop shows nothing of its ends.
        part = _LONGEST * min(size)
        left, top = max(0, (width - part) // 2), max(0, (height - part) // 2)
        width, height = min(width, part), min(height, part)
        box = (left, top, left + width, top + height)
    if width <= height:
        return box, (target, int(target * height / width))  # torchvision's Resize truncates
    return box, (int(target * width / height), target)


def centre(size: tuple[int, int], side: int) -> Box:
    """The middle square of a picture."""
    # torchvision's CenterCrop rounds the same way, half to even.
    left, top = (round((whole - side) / 2) for whole in size)
    return left, top, left + side, top + side


def finished(crops: npt.NDArray[np.uint8], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """The second half of ``crop``, for any number of crops: uint8 (N, crop, crop, channels) -> enlarged and padded,
    (N, side, side, channels)."""
    if preprocess.enlarge:
        crops = _enlarged(crops, preprocess.enlarge)
    pad = preprocess.pad
    if not pad:
        return crops
    padded = np.zeros((len(crops), preprocess.side, preprocess.side, preprocess.channels), np.uint8)
    padded[:, pad:-pad, pad:-pad] = crops
    return padded


def _enlarged(crops: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Pillow's bilinear resize, with all crops below each other in one picture: thousands of small calls a second would
    make the threads of training wait for each other. The first and the last row of each crop are doubled, so that
    neighbours do not mix."""
    count, crop, _, channels = crops.shape
    factor = side // crop
    tall = crops[:, np.clip(np.arange(-1, crop + 1), 0, crop - 1)].reshape(-1, crop, channels)
    picture = Image.fromarray(tall[..., 0] if channels == 1 else tall)
    picture = picture.resize((side, len(tall) * factor), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(count, -1, side, channels)[:, factor:-factor].copy()


def _resized(picture: Image.Image, preprocess: Preprocess, border: int) -> Image.Image:
    target, (width, height) = preprocess.resize, picture.size
    if preprocess.fit == "contain":
        if (width, height) == (target, target):
            return picture
        fill = border if preprocess.colour == "grey" else (border,) * 3
        return ImageOps.pad(picture, (target, target), Image.Resampling.BILINEAR, color=fill)
    box, size = scaling(picture.size, preprocess)
    if box is not None:
        picture = picture.crop(box)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)


def _border(grey: npt.NDArray[np.uint8]) -> int:
    """The median brightness of the outermost pixels."""
    edge = np.concatenate((grey[0], grey[-1], grey[:, 0], grey[:, -1]))
    # Not np.median, which takes longer than decoding a digit.
    edge.sort()
    return (int(edge[(len(edge) - 1) // 2]) + int(edge[len(edge) // 2])) // 2


_TORCHVISION: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
#: Caffe's models take BGR from 0 to 255, minus the mean colour of the training set.
_CAFFE: dict[str, Any] = {
    "colour": "bgr",
    "scale": 1.0,
    "mean": (104.0, 117.0, 123.0),
    "std": (1.0, 1.0, 1.0),
}

#: The presets that rows of the manifest and variants name.
PRESETS: Mapping[str, Preprocess] = MappingProxyType(
    {
        "torchvision-224": Preprocess("short side", 256, 224, **_TORCHVISION),
        # googlenet and inception_v3 were trained with 0.5 and 0.5. torchvision's networks re-normalise inside
        # (transform_input); here the preset has the numbers.
        "half-224": Preprocess("short side", 256, 224, mean=(0.5,) * 3, std=(0.5,) * 3),
        "half-299": Preprocess("short side", 342, 299, mean=(0.5,) * 3, std=(0.5,) * 3),
        "caffe-224": Preprocess("warp", 256, 224, **_CAFFE),
        "caffe-227": Preprocess("warp", 256, 227, **_CAFFE),
        # The mean and deviation of the data set. Networks made for 224 pixels get its 32 pixels enlarged to 64: of 32,
        # their pools would leave one pixel halfway.
        "cifar10": Preprocess("warp", 32, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), enlarge=64),
        # LeCun 1998, section III-A: background -0.1 and foreground 1.175, here with light ink on dark ground.
        "mnist": Preprocess(
            "contain",
            28,
            28,
            colour="grey",
            mean=(0.1 / 1.275,),
            std=(1 / 1.275,),
            pad=2,
            ink_on_light=True,
        ),
    }
)
