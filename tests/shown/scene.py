"""The picture that the cases show, and what they share."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.picture_files import (
    exif,
)
from tests.pictures import DIGIT

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int64]


class Case(NamedTuple):
    name: str
    data: bytes
    shown: Pixels
    """What a viewer shows, (height, width, 3)."""
    lossy: bool = False


@cache
def scene() -> Pixels:
    """A photograph of 70 x 45 pixels: no multiples of anything, and no two sides alike."""
    with Image.open(DIGIT.with_name("airplane.png")) as picture:
        return np.asarray(picture.convert("RGB").resize((70, 45), Image.Resampling.BOX))


def grey_scene() -> Samples:
    """Brightness, (height, width)."""
    return np.rint(scene() @ np.array([0.299, 0.587, 0.114])).astype(np.int64)


def three_channels(grey: npt.NDArray[Any]) -> Pixels:
    """Brightness as a picture of three equal channels."""
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


@cache
def disc() -> npt.NDArray[np.bool_]:
    """The pixels of a disc left of the middle."""
    y, x = np.mgrid[0:45, 0:70]
    return (x - 24) ** 2 + (y - 20) ** 2 < 15**2


def alphas() -> Samples:
    """Opaque on the left, and less and less so to the right; nothing within a band."""
    alpha = np.broadcast_to(np.linspace(255, 40, 70).round().astype(np.int64), (45, 70)).copy()
    alpha[30:36] = 0
    return alpha


def over_white(colour: npt.NDArray[Any], alpha: npt.NDArray[Any], most: int = 255) -> Pixels:
    part = alpha[..., None] / most
    return np.rint(colour * part + 255 * (1 - part)).astype(np.uint8)


def indexed(count: int) -> tuple[Samples, Pixels]:
    """The scene in that many colours: indices and palette."""
    levels = grey_scene() * count // 256
    masks = [levels == level for level in range(count)]
    palette = [scene()[mask].mean(0) if mask.any() else (0, 0, 0) for mask in masks]
    return levels, np.rint(palette).astype(np.uint8)


#: EXIF's orientation -> what makes upright pixels into stored ones.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def turned() -> Iterator[tuple[str, int, bytes]]:
    """Name, orientation and EXIF data."""
    for orientation in STORED:
        for order, name in ((">", "big-endian"), ("<", "little-endian")):
            yield f"EXIF {orientation} {name}", orientation, exif(orientation, order=order)


def camera_exif(orientation: int) -> bytes:
    """Little-endian, with further tags around the orientation, a wrong pointer, and a second directory that has another
    orientation, of the thumbnail."""
    entries = [
        struct.pack("<HHII", 0x010F, 2, 6, 0xFFFFFF),
        struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0xABCD),
        struct.pack("<HHII", 0x8769, 4, 1, 0x7FFFFFFF),
    ]
    first = struct.pack("<H", len(entries)) + b"".join(entries)
    second = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation % 8 + 1, 0, 0)
    return b"II*\0" + struct.pack("<I", 8) + first + struct.pack("<I", 8 + len(first) + 4) + second


def stored_scene(orientation: int) -> Pixels:
    return np.ascontiguousarray(STORED[orientation](scene()))
