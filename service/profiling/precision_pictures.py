"""Pictures on which precisions are compared: drawn from a seed, so that every machine has the same and none is shipped.

They are no photographs. Coloured ones are blurred blobs, gratings, shapes on a ground, or all of these at once, from
faint to glaring; grey ones are strokes of a pen, for networks that read digits. They have no labels, so they show how
often rounding changes an answer, and nothing of accuracy. docs/gpu.md compares them with photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from models.images.preprocess import Preprocess

#: How many there are: agreement of 99.5 % allows two of them to differ.
COUNT = 512
#: Changes when the pictures do: a choice that was made with others is made again.
VERSION = 1

#: float32 (side, side, 3), any range.
_Layer: TypeAlias = npt.NDArray[np.float32]
#: The side on which pictures are drawn before they are scaled to the network's.
_SIDE = 160


def pictures(preprocess: Preprocess, count: int = COUNT) -> npt.NDArray[np.uint8]:
    """The crops for a network's preprocessing: uint8 (count, side, side, channels)."""
    crops = np.empty((count, preprocess.side, preprocess.side, preprocess.channels), np.uint8)
    for number in range(count):
        random = np.random.default_rng((VERSION, number))
        picture = _strokes(random) if preprocess.channels == 1 else _coloured(random, number)
        scaled = picture.resize((preprocess.side, preprocess.side), Image.Resampling.BICUBIC)
        crops[number] = np.asarray(scaled, np.uint8).reshape(crops.shape[1:])
    return crops


def _coloured(random: np.random.Generator, number: int) -> Image.Image:
    """One kind after the other, so that each has a quarter."""
    layers = _LAYERS[number % 4 : number % 4 + 1] or _LAYERS
    picture = sum((layer(random) for layer in layers), np.zeros(3, np.float32)) / len(layers)
    # Mean and contrast vary as the light does: from faint to clipped at black and white.
    picture = random.uniform(60, 200) + random.uniform(10, 90) * picture + random.normal(0, 4, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _blobs(random: np.random.Generator) -> _Layer:
    """Colours that change slowly, faster and fast."""
    layer = np.zeros((_SIDE, _SIDE, 3), np.float32)
    for cells, strength in ((3, 1.0), (10, 0.7), (40, 0.4)):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        scaled = np.asarray(noise.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float32)
        layer += strength * (scaled / 64 - 2)
    return layer


def _gratings(random: np.random.Generator) -> _Layer:
    """Two waves of any direction, length and colour, multiplied."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32)
    layer = np.ones((_SIDE, _SIDE, 3), np.float32)
    for _ in range(2):
        angle, length = random.uniform(0, np.pi), np.exp(random.uniform(np.log(6), np.log(120)))
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + random.uniform(0, 6))
        colour, ground = random.uniform(-1, 1, (2, 3)).astype(np.float32)
        layer *= wave[..., None].astype(np.float32) * colour + ground
    return layer


def _shapes(random: np.random.Generator) -> _Layer:
    """Discs, rectangles and triangles on a ground, with edges as a camera blurs them."""
    picture = Image.new("RGB", (_SIDE, _SIDE), _colour(random))
    draw = ImageDraw.Draw(picture)
    for _ in range(random.integers(2, 12)):
        x, y, width, height = random.integers(8, _SIDE, 4).tolist()
        corners = [(x - width // 2, y - height // 2), (x + width // 2, y + height // 2)]
        kind = random.integers(3)
        if kind == 0:
            draw.ellipse(corners, fill=_colour(random))
        elif kind == 1:
            draw.rectangle(corners, fill=_colour(random), outline=_colour(random), width=3)
        else:
            draw.polygon([*corners, tuple(random.integers(0, _SIDE, 2).tolist())], fill=_colour(random))
    blurred = picture.filter(ImageFilter.GaussianBlur(random.uniform(0, 2)))
    return np.asarray(blurred, np.float32) / np.float32(64) - np.float32(2)


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


def _strokes(random: np.random.Generator) -> Image.Image:
    """White lines and arcs on black, as a pen draws them."""
    picture = Image.new("L", (_SIDE, _SIDE))
    draw = ImageDraw.Draw(picture)
    width = int(random.integers(8, 22))
    for _ in range(random.integers(1, 4)):
        x, y, right, low = random.integers(_SIDE // 5, 4 * _SIDE // 5, 4).tolist()
        if random.integers(2):
            draw.line([(x, y), (right, low)], fill=255, width=width)
        else:
            radius = int(random.integers(_SIDE // 8, _SIDE // 3))
            start = random.uniform(0, 360)
            box = [(x - radius, y - radius), (x + radius, y + radius)]
            draw.arc(box, start, start + random.uniform(120, 360), fill=255, width=width)
    return picture.filter(ImageFilter.GaussianBlur(random.uniform(1, 4)))


_LAYERS: tuple[Callable[[np.random.Generator], _Layer], ...] = (_blobs, _gratings, _shapes)
