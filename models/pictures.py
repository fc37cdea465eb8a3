"""Encoded bytes -> an upright 8-bit picture, or an error that says what was wrong with the bytes.

PictureError
├── UnsupportedFormatError   a known kind of file that is not decoded here (PDF, SVG, TIFF, HEIC, video ...)
├── UndecodableError         no decoder accepts the bytes: text, noise, truncated files
└── TooManyPixelsError       the header promises more pixels than the limit
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

#: The formats that are decoded, by Pillow's names. The list is closed: Pillow knows dozens of formats that nobody
#: posts to a classifier and whose decoders are less trodden.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Pillow warns from 89 million pixels and refuses above twice that; decode() refuses at its own limit before any
# pixel is read, so that the warning would only repeat it. The refusal itself is left on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ISO_BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
    b"avif": "AVIF",
    b"avis": "AVIF",
}
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"%PDF-", 0, "PDF"),
    (b"II*\x00", 0, "TIFF"),
    (b"MM\x00*", 0, "TIFF"),
    (b"II+\x00", 0, "TIFF"),
    (b"MM\x00+", 0, "TIFF"),
    (b"\x1a\x45\xdf\xa3", 0, "video (Matroska or WebM)"),
    (b"AVI ", 8, "video (AVI)"),
    (b"\x00\x00\x01\xba", 0, "video (MPEG)"),
    (b"\x00\x00\x01\xb3", 0, "video (MPEG)"),
    (b"FLV\x01", 0, "video (Flash)"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "video (Windows Media)"),
    (b"OggS", 0, "video or audio (Ogg)"),
    (b"8BPS", 0, "Photoshop"),
    (b"\x00\x00\x00\x0cjP  ", 0, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", 0, "JPEG XL"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\x00\x00\x01\x00", 0, "Windows icon"),
    (b"PK\x03\x04", 0, "ZIP"),
)
# Nothing before <svg can be read in two ways: a pattern that may try both takes for ever on a file of many comments.
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?xml[^>]*>|<!--(?:[^-]|-(?!->))*-->|<!DOCTYPE[^>\[]*(?:\[[^\]]*\]\s*)?>)*<svg[\s>]",
    re.IGNORECASE,
)


class PictureError(ValueError):
    """The bytes are no picture that is classified here; the text says why, in words for the caller."""


class UnsupportedFormatError(PictureError):
    """A known kind of file that is not decoded here."""


class UndecodableError(PictureError):
    """No decoder accepts the bytes."""


class TooManyPixelsError(PictureError):
    """The picture has more pixels than the limit."""


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
            raise UnsupportedFormatError(f"this is a {kind} file; JPEG, PNG, WebP, GIF and BMP are decoded") from error
        raise UndecodableError(_why_not(data)) from error


def known_kind(data: bytes) -> str | None:
    """Names a kind of file that is recognised but not decoded here; None for everything else."""
    if data[4:8] == b"ftyp":
        return _ISO_BRANDS.get(data[8:12].lower(), "video (MP4 or QuickTime)")
    for magic, offset, kind in _MAGIC:
        if data.startswith(magic, offset):
            return kind
    return "SVG" if _SVG.match(data[:4096]) else None


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
