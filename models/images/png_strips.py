"""Large PNG files, decoded strip by strip.

Pillow decodes a PNG as a whole, at up to four bytes a pixel. Here the file is inflated a few hundred rows at a time.
Pillow takes the filters off each strip, as a small PNG of its own: the row above comes first in it, since filters refer
to it. A 16-bit sample is a high byte and a low one, and filters never mix the two, so the high bytes alone make an
8-bit picture.

Interlaced files are not read here: each of their seven passes goes over the whole picture.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from models.images.errors import UndecodableError
from models.images.png import GREY, PALETTE, RGB, SIGNATURE, Png
from models.images.transparency import white_where

#: Samples a pixel, by colour type.
_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}
#: The depths that each colour type may have.
_DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
#: Pillow's mode and raw mode of a strip of less than 8 bits a sample, or with a palette.
_UNPACKED = {
    (1, GREY): ("1", "1"),
    (2, GREY): ("L", "L;2"),
    (4, GREY): ("L", "L;4"),
    (1, PALETTE): ("P", "P;1"),
    (2, PALETTE): ("P", "P;2"),
    (4, PALETTE): ("P", "P;4"),
    (8, PALETTE): ("P", "P"),
}
#: How many encoded bytes are inflated at once: what is left of them is copied for each strip.
_PIECE = 1 << 16
_TRUNCATED = "the PNG file is truncated or damaged"


def in_strips(png: Png) -> bool:
    """Whether ``strips`` reads the file: it is not interlaced, and its header is sound."""
    head = png.data[16:29]
    if len(head) < 13:
        return False
    depth, colour, compression, filters, interlace = head[8:13]
    return depth in _DEPTHS.get(colour, ()) and not (compression or filters or interlace)


def strips(png: Png, edges: Sequence[int]) -> Iterator[Image.Image]:
    """Decodes a file for which ``in_strips`` is true, from top to bottom, at 8 bits a sample and with its transparency
    noted as Pillow does.

    Args:
        png: the file.
        edges: the rows where strips begin, and the picture's height.

    Raises:
        UndecodableError: the file is truncated or damaged.
    """
    width = int.from_bytes(png.data[16:20], "big")
    samples = _SAMPLES[png.colour]
    row_bytes = (width * samples * png.depth + 7) // 8
    chunks = _Chunks(png.data)
    inflated = _Inflated(chunks.pixels)
    high, low = _Unfiltered(png, width, row_bytes), _Unfiltered(png, width, row_bytes)
    for top, bottom in pairwise(edges):
        count = bottom - top
        filtered = np.frombuffer(inflated.read(count * (row_bytes + 1)), np.uint8).reshape(count, row_bytes + 1)
        strip = high.next(filtered, 0)
        if png.transparent is not None and png.depth == 16:
            strip = white_where(strip, low.next(filtered, 1), png.transparent)
        yield _noted(strip, png, chunks, width)
    inflated.check()


def _noted(strip: Image.Image, png: Png, chunks: _Chunks, width: int) -> Image.Image:
    """The strip with its samples unpacked, its palette and its transparency."""
    unpacked = _UNPACKED.get((png.depth, png.colour))
    if unpacked is not None:
        mode, raw = unpacked
        strip = Image.frombytes(mode, (width, strip.height), strip.tobytes(), "raw", raw)
        if png.colour == PALETTE:
            if chunks.palette is None:
                raise UndecodableError(_TRUNCATED)
            strip.putpalette(chunks.palette, "RGB")
            if chunks.transparency is not None:
                strip.info["transparency"] = chunks.transparency
    if png.transparent is not None and png.depth < 16:
        key = png.transparent
        strip.info["transparency"] = key if png.colour == RGB else key[0] * 255 // ((1 << png.depth) - 1)
    return strip


class _Chunks:
    """The bodies of the chunks of a file that has only those that affect pixels."""

    def __init__(self, data: bytes) -> None:
        self.palette: bytes | None = None
        self.transparency: bytes | None = None
        self.pixels: list[memoryview] = []
        view, at = memoryview(data), len(SIGNATURE)
        while at + 8 <= len(data):
            length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            body = view[at + 8 : at + 8 + length]
            if kind == b"IDAT":
                self.pixels += (body[start : start + _PIECE] for start in range(0, len(body), _PIECE))
            elif kind == b"PLTE":
                self.palette = bytes(body)
            elif kind == b"tRNS":
                self.transparency = bytes(body)
            at += 12 + length


class _Inflated:
    """The inflated bytes of a file's pixels."""

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = iter(pieces)
        self._left: bytes | memoryview = b""
        self._inflating = zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            UndecodableError: there are fewer, or they are damaged.
        """
        parts: list[bytes] = []
        while count:
            if not self._left:
                piece = next(self._pieces, None)
                # What was inflated may still be inside.
                self._left = b"" if piece is None else piece
            try:
                part = self._inflating.decompress(self._left, count)
            except zlib.error as error:
                raise UndecodableError(_TRUNCATED) from error
            ended = not part and not self._left
            self._left = self._inflating.unconsumed_tail
            if ended or (not part and self._inflating.eof):
                raise UndecodableError(_TRUNCATED)
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self) -> None:
        """Reads on to the checksum, if it follows what was read.

        Raises:
            UndecodableError: it is wrong.
        """
        try:
            self._inflating.decompress(self._left, 1)
        except zlib.error as error:
            raise UndecodableError(_TRUNCATED) from error


class _Unfiltered:
    """Takes the filters off consecutive strips, of 16-bit samples either the high bytes or the low ones."""

    def __init__(self, png: Png, width: int, row_bytes: int) -> None:
        self._wide = png.depth == 16
        # Samples of less than 8 bits, and indices, are unfiltered as the bytes that they lie in.
        self._colour = GREY if png.depth < 8 or png.colour == PALETTE else png.colour
        self._width = width if png.depth >= 8 else row_bytes
        self._above = bytes(row_bytes // 2 if self._wide else row_bytes)

    def next(self, filtered: npt.NDArray[np.uint8], byte: int) -> Image.Image:
        """The next strip, as grey, grey and alpha, RGB or RGBA of 8 bits.

        Args:
            filtered: (rows, 1 + bytes of a row), the filter's number first.
            byte: of 16-bit samples, 0 for the high bytes and 1 for the low ones.
        """
        if self._wide:
            filtered = np.hstack((filtered[:, :1], filtered[:, 1 + byte :: 2]))
        size = self._width, len(filtered) + 1
        body = zlib.compress(b"".join((b"\0", self._above, filtered.tobytes())), 0)
        whole = b"".join(
            (
                SIGNATURE,
                _chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, self._colour, 0, 0, 0)),
                _chunk(b"IDAT", body),
                _chunk(b"IEND", b""),
            )
        )
        picture = PngImageFile(io.BytesIO(whole))
        picture.load()
        width, height = size
        self._above = picture.crop((0, height - 1, width, height)).tobytes()
        return picture.crop((0, 1, width, height))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))))
