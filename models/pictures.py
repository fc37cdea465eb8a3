"""Encoded bytes -> an upright 8-bit picture, or an error that says what was wrong with the bytes
(``picture_errors.py``).
"""

from __future__ import annotations

import io
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from models.file_kinds import known_kind
from models.picture_errors import PictureError, TooManyPixelsError, UndecodableError, UnsupportedFormatError

__all__ = [
    "FORMATS",
    "PictureError",
    "TooManyPixelsError",
    "UndecodableError",
    "UnsupportedFormatError",
    "decode",
    "known_kind",
]

#: The formats that are decoded, by Pillow's names. The list is closed: Pillow knows dozens of formats that nobody
#: posts to a classifier and whose decoders are less trodden.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Pillow warns from 89 million pixels and refuses above twice that; decode() refuses at its own limit before any
# pixel is read, so that the warning would only repeat it. The refusal itself is left on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(data: bytes, mode: Literal["RGB", "L"], *, max_pixels: int, at_least: int | None = None) -> Image.Image:
    """Decodes a picture: EXIF orientation applied, 8 bits a channel, transparent pixels over white.

    Args:
        data: a JPEG, PNG, WebP, GIF (its first frame) or BMP file.
        mode: colour or grey.
        max_pixels: limit on width times height, checked on the header before any pixel is decoded.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at least this
            many pixels; None decodes every pixel.

    Raises:
        UnsupportedFormatError, UndecodableError, TooManyPixelsError: as their names say.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
        if width * height > max_pixels:
            raise TooManyPixelsError(
                f"the picture has {width} x {height} = {width * height:,} pixels; the limit is {max_pixels:,}"
            )
        if at_least is not None:
            picture.draft(None, (at_least, at_least))
        picture.load()
        return _to_mode(_upright(picture), mode)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"the picture has more pixels than the limit of {max_pixels:,}") from error
    except MemoryError:
        raise
    except Exception as error:
        # Not a shorter list: on damaged files Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError,
        # struct.error, IndexError, KeyError and others, and all of them mean that the bytes are no picture.
        kind = known_kind(data)
        if kind is not None:
            article = "an" if kind.startswith(("A", "a", "SVG")) else "a"
            raise UnsupportedFormatError(
                f"this is {article} {kind} file; JPEG, PNG, WebP, GIF and BMP are decoded"
            ) from error
        raise UndecodableError(_why_not(data)) from error


def _why_not(data: bytes) -> str:
    for magic, kind in (
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"RIFF", "WebP"),
        (b"GIF8", "GIF"),
        (b"BM", "BMP"),
    ):
        if data.startswith(magic):
            return f"the {kind} file is truncated or damaged"
    return "the bytes are no picture: no decoder for JPEG, PNG, WebP, GIF or BMP accepts them"


def _upright(picture: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; damaged EXIF data counts as none, since the pixels are good."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _to_mode(picture: Image.Image, mode: Literal["RGB", "L"]) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16-bit grey. Pillow's own convert() clips everything above 255 to white.
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    # Before the mode is compared: a plain RGB or grey PNG may call one of its colours transparent.
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        picture = Image.alpha_composite(white, rgba).convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)
