"""JPEG files on which two decoders are compared: drawn from a seed, so that every machine has the same and none is
shipped.

They are no photographs, but their files are like photographs': soft shapes with the grain of a sensor, of several
sizes, most with colours at half the resolution, some taken on their side.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

#: How many there are.
COUNT = 64
_SEED = 20
_SIZES = ((500, 375), (375, 500), (640, 480), (320, 320), (1024, 683), (333, 500))
#: Pillow's numbers of 4:2:0 (what cameras write), 4:2:2 and 4:4:4.
_SUBSAMPLINGS = (2, 2, 2, 1, 0)
#: Every seventh picture has an EXIF orientation, one after the other.
_ON_ITS_SIDE = 7
_ORIENTATION_TAG = 274


@functools.cache
def files() -> tuple[bytes, ...]:
    """The files."""
    return tuple(_file(number) for number in range(COUNT))


def _file(number: int) -> bytes:
    random = np.random.default_rng((_SEED, number))
    exif = Image.Exif()
    if number % _ON_ITS_SIDE == 0:
        exif[_ORIENTATION_TAG] = 1 + number // _ON_ITS_SIDE % 8
    out = io.BytesIO()
    _drawn(random, _SIZES[number % len(_SIZES)]).save(
        out,
        "JPEG",
        quality=int(random.integers(75, 96)),
        subsampling=_SUBSAMPLINGS[number % len(_SUBSAMPLINGS)],
        exif=exif,
    )
    return out.getvalue()


def _drawn(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Shapes in strong colours, of which a quarter have hard edges: there decoders differ most."""
    width, height = size
    picture = Image.new("RGB", size, _colour(random))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(8, 40))):
        x, y = int(random.integers(-60, width)), int(random.integers(-60, height))
        across, down = random.integers(10, 220, 2).tolist()
        shape = draw.ellipse if random.random() < 0.6 else draw.rectangle
        shape((x, y, x + across, y + down), _colour(random))
    blurred = picture.filter(ImageFilter.GaussianBlur(float(random.choice((0.0, 1.0, 2.0, 4.0)))))
    pixels = np.asarray(blurred, np.float32) + random.normal(0, 6, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue
