"""Encoded bytes -> an upright 8-bit picture, or an error that says what is wrong with the bytes.

Before a decoder sees a file, ``jpeg.py``, ``png.py``, ``webp.py`` or ``gif.py`` reads its structure, refuses a file
that would take too long to decode, and removes the parts that do not affect pixels: metadata are sometimes damaged and
sometimes huge, and viewers ignore them.
"""

from __future__ import annotations

import io
import warnings
from typing import Literal, NamedTuple, TypeAlias

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from models.images.bmp import decode_unusual, read_header, with_known_header, with_sound_palette
from models.images.errors import (
    PictureError,
    TooManyPartsError,
    TooManyPixelsError,
    UndecodableError,
    UnsupportedFormatError,
)
from models.images.file_kinds import known_kind, refusal
from models.images.gif import without_comments
from models.images.jpeg import MOST_SCANS, PADDING, check_scans, read_markers, with_two_ends, without_metadata
from models.images.png import RGB, SIGNATURE, with_right_checksum
from models.images.png import read_chunks as read_png_chunks
from models.images.transparency import grey_of_16_bits, over_white, white_outside, white_where, without_empty_alpha
from models.images.webp import read_chunks as read_webp_chunks

__all__ = [
    "FORMATS",
    "PictureError",
    "TooManyPartsError",
    "TooManyPixelsError",
    "UndecodableError",
    "UnsupportedFormatError",
    "decode",
    "known_kind",
]

#: The formats that are decoded, by Pillow's names. Pillow reads dozens of others, which are not posted to a classifier
#: and whose decoders are less tested.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Pillow warns above 89 million pixels and refuses twice as many. decode() checks its own limit before any pixel is
# read, so the warning says nothing new. Pillow's refusal is left on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: How many rows are compared at once.
_ROWS = 256

Mode: TypeAlias = Literal["RGB", "L"]


class _Limits(NamedTuple):
    """The limits for one file."""

    pixels: int
    parts: int
    """Of segments, chunks or blocks."""
    scans: int
    quick: bool
    """Whether to refuse a file that may take longer than its number of pixels suggests."""

    def check_pixels(self, size: tuple[int, int]) -> None:
        width, height = size
        if width * height > self.pixels:
            raise TooManyPixelsError(
                f"the picture has {width} x {height} = {width * height:,} pixels; the limit is {self.pixels:,}"
            )


#: As many parts as this are read in well under a tenth of a second.
_MOST_PARTS = 65_536
#: A file with more parts or scans than this may take longer than its number of pixels suggests.
_FEW_PARTS, _FEW_SCANS = 64, 12


def decode(
    data: bytes, mode: Mode, *, max_pixels: int, at_least: int | None = None, quick: bool = False
) -> Image.Image:
    """Decodes a picture: EXIF orientation applied, 8 bits a channel, transparent pixels over white.

    Args:
        data: a JPEG, PNG, WebP, GIF (its first frame) or BMP file.
        mode: colour or grey.
        max_pixels: the limit of width times height, checked before any pixel is decoded.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at least this many
            pixels; None: at its full size.
        quick: whether to raise TooManyPartsError for a file that may take longer than its number of pixels suggests.

    Raises:
        PictureError: one of its four subclasses, see ``errors.py``.
    """
    limits = _Limits(max_pixels, *((_FEW_PARTS, _FEW_SCANS) if quick else (_MOST_PARTS, MOST_SCANS)), quick)
    try:
        if data.startswith(b"\xff\xd8"):
            return _decode_jpeg(data, mode, limits, at_least)
        if data.startswith(SIGNATURE):
            return _decode_png(data, mode, limits)
        if data.startswith(b"RIFF"):
            return _decode_webp(data, mode, limits)
        if data.startswith(b"GIF8"):
            return _decode_gif(data, mode, limits)
        return _decode_bmp(data, mode, limits)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise TooManyPixelsError(f"the picture has more pixels than the limit of {limit:,}") from error
    except MemoryError:
        raise
    except Exception as error:
        # On damaged files, Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error,
        # IndexError, KeyError and others. Every one of them means that the bytes cannot be decoded.
        kind = known_kind(data)
        if kind is not None:
            raise UnsupportedFormatError(refusal(kind)) from error
        raise UndecodableError(_why_not(data)) from error


def _decode_jpeg(data: bytes, mode: Mode, limits: _Limits, at_least: int | None) -> Image.Image:
    markers = read_markers(data, most_parts=limits.parts, most_scans=limits.scans)
    check_scans(markers)
    data = without_metadata(data, markers)
    try:
        # Zeros behind a file that was cut would be decoded as pixels.
        whole = data.rstrip(b"\0") if data.endswith(PADDING) else data
        picture = _load_jpeg(whole, limits, at_least)
    except OSError:
        if limits.quick:
            raise TooManyPartsError("the JPEG file has no end, and takes three times as long") from None
        ends = with_two_ends(data, most_parts=limits.parts)
        if ends is None:
            raise
        picture, other = (_load_jpeg(end, limits, at_least) for end in ends)
        if not _same_pixels(picture, other):
            raise
    return _finished(picture, mode, markers.orientation)


def _load_jpeg(data: bytes, limits: _Limits, at_least: int | None) -> Image.Image:
    # Not Image.open(), which also looks for further pictures in the file.
    picture = JpegImageFile(io.BytesIO(data))
    limits.check_pixels(picture.size)
    if at_least is not None:
        picture.draft(None, (at_least, at_least))
    picture.load()
    return picture


def _decode_png(data: bytes, mode: Mode, limits: _Limits) -> Image.Image:
    png = read_png_chunks(data, most_parts=limits.parts)
    # Not Image.open(), which looks for the plugin of the one format that the signature leaves, and for a file's name.
    picture: Image.Image = PngImageFile(io.BytesIO(png.data))
    _check_pillows_limit(picture.size)
    limits.check_pixels(picture.size)
    try:
        picture.load()
    except OSError:
        if limits.quick:
            raise TooManyPartsError("the data of the PNG file are damaged, and take twice as long") from None
        # 16 bits of four samples at most, and a byte a row, in each of seven passes.
        mended = with_right_checksum(png.data, most_bytes=8 * picture.width * picture.height + 14 * picture.height)
        if mended is None:
            raise
        png = png._replace(data=mended)
        picture = PngImageFile(io.BytesIO(mended))
        picture.load()
    key = png.transparent
    if picture.mode.startswith("I"):
        picture = grey_of_16_bits(picture, key[0] if key else None)
    elif key and png.depth == 16:
        picture = white_where(picture, _low_bytes(png.data), key)
    elif key and png.colour == RGB:
        picture.info["transparency"] = key
    elif key:
        # Pillow scales the pixels to 8 bits, but not the transparent grey.
        picture.info["transparency"] = key[0] * 255 // ((1 << png.depth) - 1)
    return _finished(picture, mode, png.orientation)


def _low_bytes(png: bytes) -> Image.Image:
    """Decodes the low bytes of the samples of a 16-bit RGB PNG; by default Pillow decodes the high ones."""
    picture = Image.open(io.BytesIO(png), formats=("PNG",))
    picture.tile = [tile._replace(args="RGB;16L") for tile in picture.tile]
    picture.load()
    return picture


def _decode_webp(data: bytes, mode: Mode, limits: _Limits) -> Image.Image:
    webp = read_webp_chunks(data, most_parts=limits.parts)
    picture = _opened(webp.data, limits)
    picture.load()
    return _finished(picture, mode, webp.orientation)


def _decode_gif(data: bytes, mode: Mode, limits: _Limits) -> Image.Image:
    picture = _opened(without_comments(data, most_parts=limits.parts), limits)
    frame = picture.tile[0].extents
    picture.load()
    finished = _finished(picture, mode, None)
    return finished if frame is None else white_outside(finished, frame)


def _decode_bmp(data: bytes, mode: Mode, limits: _Limits) -> Image.Image:
    data = with_known_header(data)
    header = read_header(data) if data.startswith(b"BM") else None
    if header is not None:
        limits.check_pixels((header.width, header.height))
        if limits.quick and header.has_runs:
            raise TooManyPartsError("the BMP file consists of runs")
        unusual = decode_unusual(data, header)
        if unusual is not None:
            return _finished(without_empty_alpha(unusual), mode, None)
        data = with_sound_palette(data, header)
    picture = _opened(data, limits)
    picture.load()
    return _finished(without_empty_alpha(picture), mode, None)


def _opened(data: bytes, limits: _Limits) -> ImageFile.ImageFile:
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    limits.check_pixels(picture.size)
    return picture


def _check_pillows_limit(size: tuple[int, int]) -> None:
    """Refuses what Image.open() refuses."""
    most, (width, height) = Image.MAX_IMAGE_PIXELS, size
    if most is not None and width * height > 2 * most:
        raise Image.DecompressionBombError


def _finished(picture: Image.Image, mode: Mode, orientation: int | None) -> Image.Image:
    picture = over_white(picture)
    if picture.mode != mode:
        picture = picture.convert(mode)
    turn = _UPRIGHT.get(orientation) if orientation is not None else None
    return picture if turn is None else picture.transpose(turn)


def _same_pixels(one: Image.Image, other: Image.Image) -> bool:
    """Compares in parts, since copies of all pixels would take as much memory as decoding them."""
    width, height = one.size
    boxes = [(0, top, width, min(top + _ROWS, height)) for top in range(0, height, _ROWS)]
    return all(one.crop(box).tobytes() == other.crop(box).tobytes() for box in boxes)


def _why_not(data: bytes) -> str:
    for magic, kind in (
        (b"\xff\xd8\xff", "JPEG"),
        (SIGNATURE, "PNG"),
        (b"RIFF", "WebP"),
        (b"GIF8", "GIF"),
        (b"BM", "BMP"),
    ):
        if data.startswith(magic):
            return f"the {kind} file is truncated or damaged"
    return "the bytes are no picture: no decoder for JPEG, PNG, WebP, GIF or BMP accepts them"
