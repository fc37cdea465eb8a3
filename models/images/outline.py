"""What the header of a picture's file says of the work of decoding it. No pixel is decoded, no metadata are read.

``glance`` reads an outline in microseconds, whatever the file. ``pictures.decode`` makes the exact one from the
structure that it reads anyway: of a JPEG the number of scans, which only its last byte tells.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple, TypeAlias

from models.images.bmp import BmpHeader, read_header, read_old_header
from models.images.gif import frame_size
from models.images.jpeg import Markers, read_start
from models.images.png import PALETTE, SIGNATURE
from models.images.webp import canvas

#: The kinds of work, each with rates of its own in ``cost.py``.
Kind: TypeAlias = Literal[
    "jpeg",
    "jpeg scans",
    "png",
    "png alpha",
    "png interlaced",
    "webp",
    "webp lossless",
    "gif",
    "bmp",
    "bmp fields",
    "bmp runs",
]
#: How often the scans of a progressive JPEG pass over its samples if only its start was read; 4 to 6 times in libjpeg's
#: files.
_PASSES = 6.0
#: Samples a pixel, by PNG's colour type.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_HEADER = struct.Struct(">IIBBBBB")
#: How far behind the header a PNG's transparency is looked for: a palette of 256 colours is before it.
_KEY_WITHIN = 2048
#: The end of a whole JPEG is looked for in so many of its last bytes.
_TAIL = 64


class Outline(NamedTuple):
    """The work of decoding one file."""

    kind: Kind
    width: int
    height: int
    """As stored, before it is turned upright."""
    size: int
    """Encoded bytes."""
    units: float
    """What the decoder passes over: of a JPEG samples, once for each scan; of a PNG bytes of its rows; else pixels."""
    held: float = 4.0
    """Bytes a pixel that are held once it is decoded as a whole."""
    extra: float = 0.0
    """Bytes a pixel that the decoder holds beside them, at the picture's full size."""


def glance(data: bytes) -> Outline | None:
    """The outline of a file by its first bytes; None if they do not say."""
    if data.startswith(b"\xff\xd8"):
        start = read_start(data)
        return None if start is None else of_jpeg(start, data)
    if data.startswith(SIGNATURE):
        return of_png(data) if len(data) > 33 else None
    if data.startswith(b"RIFF"):
        return of_webp(data)
    if data.startswith(b"GIF8"):
        return of_gif(data)
    return of_bmp(read_header(data), data) if data.startswith(b"BM") else None


def of_jpeg(markers: Markers, data: bytes) -> Outline:
    """The outline of a JPEG by its markers.

    Args:
        markers: all of them, or those up to the first scan.
        data: the file.
    """
    frame = markers.frame
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    widest = tallest = blocks = 1
    colours = frame[5] if len(frame) > 5 else 1
    if colours > 1:
        blocks = 0
        for at in range(7, len(frame), 3):
            across, down = frame[at] >> 4, frame[at] & 15
            blocks += across * down
            widest, tallest = max(widest, across), max(tallest, down)
    samples = blocks / (widest * tallest)
    kind: Kind = "jpeg"
    units, extra = width * height * samples, 0.0
    if markers.scans or markers.progressive:
        # All coefficients are held, 16 bits each, until the last scan.
        kind, extra = "jpeg scans", 2 * samples
        units = markers.passed if markers.scans else units * _PASSES
    if data.find(b"\xff\xd9", -_TAIL) < 0:
        # It is decoded up to three times, and two of them are compared.
        return Outline(kind, width, height, 3 * len(data), 3 * units, 4.0, extra + 4.0)
    return Outline(kind, width, height, len(data), units, 1.0 if colours == 1 else 4.0, extra)


def of_png(data: bytes) -> Outline:
    """The outline of a PNG by its header."""
    width, height, depth, colour, _, _, interlaced = _PNG_HEADER.unpack_from(data, 16)
    samples = _SAMPLES.get(colour, 4)
    kind: Kind = "png"
    units = width * height * samples * depth / 8
    if samples * depth == 8 and not interlaced and colour == 0 and data.find(b"tRNS", 33, _KEY_WITHIN) < 0:
        # Most digits.
        return Outline(kind, width, height, len(data), units, 1.0, 0.0)
    if colour >= 4 or data.find(b"tRNS", 33, _KEY_WITHIN) > 0:
        kind = "png alpha"
    if interlaced:
        kind = "png interlaced"
    held = 1.0 if colour == PALETTE or samples * depth <= 8 else 2.0 if samples * depth == 16 and colour == 0 else 4.0
    # Of 16-bit RGB with a transparent colour, the low bytes are decoded too: all at once only of an interlaced file.
    return Outline(kind, width, height, len(data), units, held, held if depth == 16 and interlaced else 0.0)


def of_webp(data: bytes) -> Outline:
    """The outline of a WebP by its header."""
    width, height = canvas(data)
    lossy = data[12:16] == b"VP8 " or data.find(b"VP8 ", 30, _KEY_WITHIN) > 0
    # libwebp's decoder for animations has two canvases, for every file.
    return Outline("webp" if lossy else "webp lossless", width, height, len(data), width * height, 4.0, 8.0)


def of_gif(data: bytes) -> Outline:
    """The outline of a GIF by its screen and its first frame."""
    width, height = frame_size(data)
    return Outline("gif", width, height, len(data), width * height, 1.0)


def of_bmp(header: BmpHeader | None, data: bytes) -> Outline | None:
    """The outline of a BMP by its header; None if that is damaged.

    Args:
        header: the file's; None if it is not of the usual kind.
        data: the file.
    """
    kind: Kind = "bmp"
    if header is None:
        old = read_old_header(data)
        if old is None:
            return None
        width, height, bits = old
    else:
        width, height, bits = header.width, header.height, header.bits
        kind = "bmp runs" if header.has_runs else "bmp fields" if header.has_fields else "bmp"
    held = 1.0 if bits <= 8 else 4.0
    width, height = max(0, width), max(0, height)
    return Outline(kind, width, height, len(data), width * height, held, 0.0 if kind == "bmp" else held)
