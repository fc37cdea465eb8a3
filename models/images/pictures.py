"""Encoded bytes -> an upright 8-bit picture, or an error that says what is wrong with the bytes.

Before a decoder sees a file, ``jpeg.py``, ``png.py``, ``webp.py`` or ``gif.py`` reads its structure, refuses a file
that would take too long to decode, and removes the parts that do not affect pixels: metadata are sometimes damaged and
sometimes huge, and viewers ignore them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from PIL import Image
from PIL._webp import WebPAnimDecoder
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from models.images.bmp import Runs, decode_unusual, read_header, with_known_header, with_sound_palette
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
from models.images.outline import Outline, of_bmp, of_gif, of_jpeg, of_png, of_webp
from models.images.png import RGB, SIGNATURE, Png, with_right_checksum
from models.images.png import read_chunks as read_png_chunks
from models.images.png_strips import in_strips
from models.images.png_strips import strips as png_strips
from models.images.shrink import WHOLE_PIXELS, Box, Shrink, shrunk, strips_of
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

# Pillow warns above 89 million pixels. decode() checks its own limit before any pixel is read, so the warning says
# nothing new. Pillow's refusal of twice as many is left on for whoever uses Image.open(); decode() uses the plugins of
# the formats themselves, which do not look at that limit, nor for the plugin of a format that is known already.
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
#: Raises a PictureError for a picture that is too much work.
Check: TypeAlias = Callable[[Outline], None]
#: How small a picture of that size may be made.
Needed: TypeAlias = Callable[[tuple[int, int]], Shrink]


def anything(_outline: Outline) -> None:
    """Refuses no picture."""


def _all_of(size: tuple[int, int]) -> Shrink:
    return Shrink((0, 0, *size))


class _Wanted(NamedTuple):
    """What a picture is to become."""

    mode: Mode
    at_least: int | None
    needed: Needed


class _Limits(NamedTuple):
    """The limits for one file."""

    pixels: int
    parts: int
    """Of segments, chunks or blocks."""
    scans: int
    quick: bool
    """Whether to refuse a file that may take longer than its number of pixels suggests."""
    further: Check

    def check(self, outline: Outline) -> None:
        """Refuses a picture that is too large, or too much work."""
        if outline.width * outline.height > self.pixels:
            self.check_pixels((outline.width, outline.height))
        self.further(outline)

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
    data: bytes,
    mode: Mode,
    *,
    max_pixels: int,
    at_least: int | None = None,
    needed: Needed = _all_of,
    quick: bool = False,
    check: Check = anything,
) -> Image.Image:
    """Decodes a picture: EXIF orientation applied, 8 bits a channel, transparent pixels over white.

    Args:
        data: a JPEG, PNG, WebP, GIF (its first frame) or BMP file.
        mode: colour or grey.
        max_pixels: the limit of width times height, checked before any pixel is decoded.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at least this many
            pixels; None: at its full size.
        needed: says for the size of a picture how small it may be made; asked only of large pictures.
        quick: whether to raise TooManyPartsError for a file that may take longer than its number of pixels suggests.
        check: is called with the picture's outline before any pixel is decoded, and may raise a PictureError.

    Raises:
        PictureError: one of its subclasses, see ``errors.py``.
    """
    parts, scans = (_FEW_PARTS, _FEW_SCANS) if quick else (_MOST_PARTS, MOST_SCANS)
    limits = _Limits(max_pixels, parts, scans, quick, check)
    wanted = _Wanted(mode, at_least, needed)
    try:
        if data.startswith(b"\xff\xd8"):
            return _decode_jpeg(data, wanted, limits)
        if data.startswith(SIGNATURE):
            return _decode_png(data, wanted, limits)
        if data.startswith(b"RIFF"):
            return _decode_webp(data, wanted, limits)
        if data.startswith(b"GIF8"):
            return _decode_gif(data, wanted, limits)
        return _decode_bmp(data, wanted, limits)
    except PictureError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        # On damaged files, Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error,
        # IndexError, KeyError and others. Every one of them means that the bytes cannot be decoded.
        kind = known_kind(data)
        if kind is not None:
            raise UnsupportedFormatError(refusal(kind)) from error
        raise UndecodableError(_why_not(data)) from error


def _decode_jpeg(data: bytes, wanted: _Wanted, limits: _Limits) -> Image.Image:
    markers = read_markers(data, most_parts=limits.parts, most_scans=limits.scans)
    check_scans(markers)
    limits.check(of_jpeg(markers, data))
    data = without_metadata(data, markers)
    try:
        # Zeros behind a file that was cut would be decoded as pixels.
        whole = data.rstrip(b"\0") if data.endswith(PADDING) else data
        picture = _load_jpeg(whole, limits, wanted.at_least)
    except OSError:
        if limits.quick:
            raise TooManyPartsError("the JPEG file has no end, and takes three times as long") from None
        ends = with_two_ends(data, most_parts=limits.parts)
        if ends is None:
            raise
        picture, other = (_load_jpeg(end, limits, wanted.at_least) for end in ends)
        if not _same_pixels(picture, other):
            raise
    return _finished(picture, wanted, markers.orientation)


def _load_jpeg(data: bytes, limits: _Limits, at_least: int | None) -> Image.Image:
    picture = JpegImageFile(io.BytesIO(data))
    limits.check_pixels(picture.size)
    if at_least is not None:
        picture.draft(None, (at_least, at_least))
    picture.load()
    return picture


def _decode_png(data: bytes, wanted: _Wanted, limits: _Limits) -> Image.Image:
    png = read_png_chunks(data, most_parts=limits.parts)
    if limits.further is not anything:
        limits.check(of_png(png.data))
    picture = PngImageFile(io.BytesIO(png.data))
    limits.check_pixels(picture.size)
    try:
        return _load_png(png, picture, wanted)
    except (OSError, UndecodableError):
        if limits.quick:
            raise TooManyPartsError("the data of the PNG file are damaged, and take twice as long") from None
        # 16 bits of four samples at most, and a byte a row, in each of seven passes.
        mended = with_right_checksum(png.data, most_bytes=8 * picture.width * picture.height + 14 * picture.height)
        if mended is None:
            raise
    return _load_png(png._replace(data=mended), PngImageFile(io.BytesIO(mended)), wanted)


def _load_png(png: Png, picture: Image.Image, wanted: _Wanted) -> Image.Image:
    width, height = picture.size
    if width * height > WHOLE_PIXELS and in_strips(png):
        return _small(picture.size, partial(png_strips, png), wanted, png.orientation)
    picture.load()
    key = png.transparent
    plain = _no_step
    if picture.mode.startswith("I"):
        plain = partial(grey_of_16_bits, transparent=key[0] if key else None)
    elif key and png.depth == 16:
        picture = white_where(picture, _low_bytes(png.data), key)
    elif key and png.colour == RGB:
        picture.info["transparency"] = key
    elif key:
        # Pillow scales the pixels to 8 bits, but not the transparent grey.
        picture.info["transparency"] = key[0] * 255 // ((1 << png.depth) - 1)
    return _finished(picture, wanted, png.orientation, plain)


def _low_bytes(png: bytes) -> Image.Image:
    """Decodes the low bytes of the samples of a 16-bit RGB PNG; by default Pillow decodes the high ones."""
    picture = PngImageFile(io.BytesIO(png))
    picture.tile = [tile._replace(args="RGB;16L") for tile in picture.tile]
    picture.load()
    return picture


def _decode_webp(data: bytes, wanted: _Wanted, limits: _Limits) -> Image.Image:
    webp = read_webp_chunks(data, most_parts=limits.parts)
    limits.check(of_webp(webp.data))
    # Not Pillow's plugin, which has a limit of its own, and holds on to the decoder.
    decoder = WebPAnimDecoder(webp.data)
    size, _loop, _background, _frames, raw = decoder.get_info()
    pixels, _timestamp = decoder.get_next()
    # The decoder has two more copies of all pixels.
    del decoder
    mode = "RGB" if raw == "RGBX" else raw
    if _is_large(size):
        return _small(size, partial(_raw_strips, pixels, size, mode, raw), wanted, webp.orientation)
    return _finished(Image.frombytes(mode, size, pixels, "raw", raw), wanted, webp.orientation)


def _raw_strips(
    pixels: bytes, size: tuple[int, int], mode: str, raw: str, edges: Sequence[int]
) -> Iterator[Image.Image]:
    """The strips of a picture whose pixels lie in memory, four bytes each."""
    view, row = memoryview(pixels), 4 * size[0]
    for top, bottom in pairwise(edges):
        yield Image.frombytes(mode, (size[0], bottom - top), view[row * top : row * bottom], "raw", raw)


def _decode_gif(data: bytes, wanted: _Wanted, limits: _Limits) -> Image.Image:
    data = without_comments(data, most_parts=limits.parts)
    limits.check(of_gif(data))
    picture = GifImageFile(io.BytesIO(data))
    limits.check_pixels(picture.size)
    frame = picture.tile[0].extents or (0, 0, *picture.size)
    picture.load()
    if _is_large(picture.size):
        return _small(picture.size, partial(_gif_strips, picture, frame, wanted.mode), wanted, None)
    return white_outside(_finished(picture, wanted, None), frame)


def _gif_strips(picture: Image.Image, frame: Box, mode: Mode, edges: Sequence[int]) -> Iterator[Image.Image]:
    """Plain strips of a GIF, white outside its frame."""
    left, first, right, last = frame
    for top, strip in zip(edges, strips_of(picture, edges), strict=False):
        inside = (left, max(0, first - top), right, max(0, min(last - top, strip.height)))
        yield white_outside(_plain(strip, mode), inside)


def _decode_bmp(data: bytes, wanted: _Wanted, limits: _Limits) -> Image.Image:
    data = with_known_header(data)
    header = read_header(data) if data.startswith(b"BM") else None
    outline = of_bmp(header, data) if data.startswith(b"BM") else None
    if outline is not None:
        limits.check(outline)
    if header is not None:
        if limits.quick and header.has_runs:
            raise TooManyPartsError("the BMP file consists of runs")
        unusual = decode_unusual(data, header)
        if isinstance(unusual, Runs):
            if _is_large(unusual.size):
                return _small(unusual.size, unusual.strips, wanted, None)
            return _finished(next(unusual.strips((0, unusual.size[1]))), wanted, None)
        if unusual is not None:
            return _finished(without_empty_alpha(unusual), wanted, None)
        data = with_sound_palette(data, header)
    picture = BmpImageFile(io.BytesIO(data))
    limits.check_pixels(picture.size)
    picture.load()
    return _finished(without_empty_alpha(picture), wanted, None)


def _is_large(size: tuple[int, int]) -> bool:
    return size[0] * size[1] > WHOLE_PIXELS


def _no_step(strip: Image.Image) -> Image.Image:
    return strip


def _finished(
    picture: Image.Image,
    wanted: _Wanted,
    orientation: int | None,
    step: Callable[[Image.Image], Image.Image] = _no_step,
) -> Image.Image:
    """Makes a decoded picture plain and upright, and a large one small.

    Args:
        picture: in any mode.
        wanted: what it is to become.
        orientation: EXIF's.
        step: what is done to its pixels first.
    """
    width, height = picture.size
    if width * height > WHOLE_PIXELS:
        return _small(picture.size, partial(strips_of, picture), wanted, orientation, step)
    plain = _plain(picture if step is _no_step else step(picture), wanted.mode)
    return plain if orientation is None else _upright(plain, orientation)


def _small(
    size: tuple[int, int],
    strips: Callable[[Sequence[int]], Iterable[Image.Image]],
    wanted: _Wanted,
    orientation: int | None,
    step: Callable[[Image.Image], Image.Image] = _no_step,
) -> Image.Image:
    """The same for a large picture that another function cuts into strips."""
    width, height = size
    # Of a picture on its side too: no fit treats columns and rows differently.
    shrink = wanted.needed(size).in_strips(width)
    cut = strips(shrink.edges(width, height))
    return _upright(shrunk(cut, lambda strip: _plain(step(strip), wanted.mode), shrink), orientation)


def _plain(picture: Image.Image, mode: Mode) -> Image.Image:
    picture = over_white(picture)
    return picture if picture.mode == mode else picture.convert(mode)


def _upright(picture: Image.Image, orientation: int | None) -> Image.Image:
    turn = _UPRIGHT.get(orientation or 0)
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
