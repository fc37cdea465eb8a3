"""Transparent pixels over white, whichever way a format marks them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from PIL import Image

Box: TypeAlias = tuple[int, int, int, int]


def over_white(picture: Image.Image) -> Image.Image:
    """Puts the picture over white if Pillow says that it has transparency; else returns the picture itself."""
    if not picture.has_transparency_data:
        return picture
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def grey_of_16_bits(picture: Image.Image, transparent: int | None) -> Image.Image:
    """Converts a 16-bit grey picture to 8 bits and makes the transparent one of its 65,536 greys white. Pillow's own
    conversion clips everything above 255 to white, and ignores transparency."""
    values = np.asarray(picture).astype(np.uint32)
    grey = (values >> 8).clip(0, 255).astype(np.uint8)
    if transparent is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def white_where(high: Image.Image, low: Image.Image, transparent: tuple[int, ...]) -> Image.Image:
    """Returns the high bytes of a 16-bit grey or RGB picture, with white where high and low bytes form the transparent
    colour."""
    pixels = np.array(high)
    keyed = np.ones(pixels.shape[:2], bool)
    for part, shift in ((np.atleast_3d(pixels), 8), (np.atleast_3d(np.asarray(low)), 0)):
        for channel, value in enumerate(transparent):
            keyed &= part[..., channel] == value >> shift & 0xFF
    pixels[keyed] = 255
    return Image.fromarray(pixels)


def without_empty_alpha(picture: Image.Image) -> Image.Image:
    """Drops the alpha channel of a BMP if it is 0 everywhere: such a picture is meant to be opaque. Windows' clipboard
    writes such files, and browsers show them."""
    if picture.mode == "RGBA" and picture.getchannel("A").getbbox() is None:
        return picture.convert("RGB")
    return picture


def white_outside(picture: Image.Image, frame: Box) -> Image.Image:
    """Makes everything white outside the part of a GIF's screen that its first picture covers, as browsers do."""
    if frame == (0, 0, *picture.size):
        return picture
    screen = Image.new(picture.mode, picture.size, "white")
    if frame[1] < frame[3]:
        screen.paste(picture.crop(frame), frame)
    return screen
