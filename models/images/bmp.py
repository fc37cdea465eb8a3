"""The kinds of BMP files that are decoded here rather than by Pillow: run lengths, unusual bit fields, and 2 bits a
pixel.

Pillow decodes run lengths pixel by pixel in Python, which takes seconds for a few kilobytes, and it accepts only a
dozen layouts of bit fields. It decodes all other BMP files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from models.images.errors import UndecodableError

_RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 1, 2, 3, 6
#: The lengths of the headers that Pillow knows, of OS/2 2.x and Windows; OS/2's may be as short as the first number.
_LENGTHS, _SHORTEST, _OS2_LENGTH = (40, 52, 56), 16, 64
#: How many rows are decoded at once: the 64-bit numbers in between take eight times the memory of the pixels.
_ROWS = 256
_TRUNCATED = "the BMP file is truncated or damaged"
#: The masks of red, green, blue and alpha that Pillow accepts, by bits a pixel.
_DECODED_BY_PILLOW = {
    16: {(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)},
    32: {
        (0xFF0000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
    },
}


@dataclass(frozen=True, slots=True)
class BmpHeader:
    """The fields of a BMP header of 40 bytes or more."""

    pixels_at: int
    length: int
    """The length of the header without the 14 bytes before it, which tells its version."""
    width: int
    height: int
    top_down: bool
    """Whether the first row of the file is the top row; usually it is the bottom row."""
    bits: int
    """Bits a pixel."""
    compression: int
    colours: int
    """Number of colours in the palette; 0: as many as ``bits`` can number."""

    @property
    def has_runs(self) -> bool:
        return self.compression in (_RLE8, _RLE4)

    @property
    def has_fields(self) -> bool:
        return self.compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS)


def read_header(data: bytes) -> BmpHeader | None:
    """Reads the header of a BMP file. None if the file ends within it, or if it is the header of OS/2 1.x, which has
    neither run lengths nor bit fields."""
    if len(data) < 54:
        return None
    pixels_at, length, width, height, _, bits, compression, _, _, _, colours = struct.unpack_from(
        "<IIiiHHIIiiI", data, 10
    )
    if length < 40:
        return None
    return BmpHeader(pixels_at, length, width, abs(height), height < 0, bits, compression, colours)


def with_known_header(data: bytes) -> bytes:
    """Gives a file with a header of OS/2 2.x its usual length: that header may end after any of its fields, and the
    missing ones count as 0."""
    length = int.from_bytes(data[14:18], "little")
    is_unusual = _SHORTEST <= length < _OS2_LENGTH and length not in _LENGTHS
    if not data.startswith(b"BM") or not is_unusual or len(data) < 14 + length:
        return data
    pixels_at = int.from_bytes(data[10:14], "little")
    fields = data[18 : 14 + min(length, 40)].ljust(36, b"\0")
    start = struct.pack("<II", pixels_at + 40 - length if pixels_at else 0, 40)
    return b"".join((data[:10], start, fields, memoryview(data)[14 + length :]))


def read_old_header(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and bits a pixel by the header of OS/2 1.x; None if the file has another one."""
    if len(data) < 26 or data[14:18] != b"\x0c\0\0\0":
        return None
    width, height, _, bits = struct.unpack_from("<4H", data, 18)
    return width, height, bits


def with_sound_palette(data: bytes, header: BmpHeader) -> bytes:
    """Limits the number of colours in the header to what ``bits`` can number: Pillow would read 65,536 of them."""
    if header.bits <= 8 and header.colours > 1 << header.bits:
        return data[:46] + struct.pack("<I", 1 << header.bits) + data[50:]
    return data


def decode_unusual(data: bytes, header: BmpHeader) -> Image.Image | Runs | None:
    """Decodes what Pillow does not: run lengths, and others to RGB or RGBA; None for files that Pillow decodes.

    Raises:
        UndecodableError: the file is truncated or damaged.
    """
    if header.width <= 0 or not header.height:
        return None
    if header.has_runs and header.bits <= 8:
        return Runs(data, header)
    if header.bits == 2 and not header.compression:
        return _decode_two_bits(data, header)
    if header.compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) and header.bits in (16, 32):
        masks = _masks(data, header)
        if any(masks[:3]) and (header.compression != _BIT_FIELDS or masks not in _DECODED_BY_PILLOW[header.bits]):
            return _decode_fields(data, header, masks)
    return None


def _masks(data: bytes, header: BmpHeader) -> tuple[int, ...]:
    """The masks of red, green, blue and alpha, which follow the first 40 bytes of every header. The alpha mask exists
    from the header's third version (56 bytes) on."""
    has_alpha = header.length >= 56 or header.compression == _ALPHA_BIT_FIELDS
    masks = struct.unpack("<4I", data[54:70].ljust(16, b"\0"))
    return masks if has_alpha else (*masks[:3], 0)


def _decode_fields(data: bytes, header: BmpHeader, masks: tuple[int, ...]) -> Image.Image:
    size, width, height = header.bits // 8, header.width, header.height
    stride = (width * size + 3) // 4 * 4
    if len(data) < header.pixels_at + stride * height:
        raise UndecodableError(_TRUNCATED)
    rows = np.frombuffer(data, np.uint8, stride * height, header.pixels_at).reshape(height, stride)
    if not header.top_down:
        rows = rows[::-1]
    masks = masks if masks[3] else masks[:3]
    channels = np.empty((height, width, len(masks)), np.uint8)
    for top in range(0, height, _ROWS):
        pixels = np.ascontiguousarray(rows[top : top + _ROWS, : width * size]).view(f"<u{size}")
        for channel, mask in enumerate(masks):
            channels[top : top + _ROWS, :, channel] = _field(pixels, mask)
    return Image.fromarray(channels)


def _field(pixels: npt.NDArray[np.unsignedinteger], mask: int) -> npt.NDArray[np.uint8]:
    """One channel, scaled to 8 bits."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    values = (pixels & pixels.dtype.type(mask)) >> pixels.dtype.type(shift)
    most = mask >> shift
    scaled: npt.NDArray[np.uint64] = values.astype(np.uint64) * 255 // most
    return scaled.astype(np.uint8)


def _decode_two_bits(data: bytes, header: BmpHeader) -> Image.Image:
    """Decodes four pixels a byte, which Windows CE writes."""
    stride = (header.width * 2 + 31) // 32 * 4
    last = -(-header.width * 2 // 8)
    start = header.pixels_at
    # The last row may lack its padding.
    if len(data) < start + stride * (header.height - 1) + last:
        raise UndecodableError(_TRUNCATED)
    rows = data[start : start + stride * header.height].ljust(stride * header.height, b"\0")
    picture = Image.frombytes(
        "P", (header.width, header.height), rows, "raw", "P;2", stride, 1 if header.top_down else -1
    )
    picture.putpalette(_palette(data, header), "BGRX")
    return picture.convert("RGB")


def _palette(data: bytes, header: BmpHeader) -> bytes:
    """256 colours, four bytes each; those beyond the file's palette are black."""
    colours = min(header.colours or 1 << header.bits, 1 << header.bits)
    return data[14 + header.length :][: 4 * colours].ljust(4 * 256, b"\0")


class Runs:
    """A decoded file of run lengths. Its strips are made plain one at a time, since all pixels in colour would take
    four times the memory.

    Raises:
        UndecodableError: the file is truncated.
    """

    def __init__(self, data: bytes, header: BmpHeader) -> None:
        bits = 4 if header.compression == _RLE4 else 8
        self.size = header.width, header.height
        self._top_down = header.top_down
        self._palette = _palette(data, header)
        self._indices = bytearray(header.width * header.height)
        self._written = bytearray(header.width * header.height)
        for at, run in _runs(data, header, bits):
            self._indices[at : at + len(run)] = run
            self._written[at : at + len(run)] = b"\1" * len(run)

    def strips(self, edges: Sequence[int]) -> Iterator[Image.Image]:
        """Strips in RGB, from top to bottom, between the rows that ``edges`` names."""
        for top, bottom in pairwise(edges):
            yield self._strip(top, bottom)

    def _strip(self, top: int, bottom: int) -> Image.Image:
        """Pixels that no run covers are white, since browsers show nothing there."""
        width, height = self.size
        size = width, bottom - top
        if not self._top_down:
            top, bottom = height - bottom, height - top
        stored = slice(width * top, width * bottom)
        strip = Image.frombytes("P", size, bytes(self._indices[stored]))
        strip.putpalette(self._palette, "BGRX")
        strip = strip.convert("RGB")
        written = self._written[stored]
        if 0 in written:
            unwritten = Image.frombytes("L", size, bytes(written)).point([255] + [0] * 255)
            strip.paste("white", (0, 0, *size), unwritten)
        return strip if self._top_down else ImageOps.flip(strip)


def _runs(data: bytes, header: BmpHeader, bits: int) -> Iterator[tuple[int, bytes]]:
    """Yields the start of each run, as a number of pixels in the file's order of rows, and its palette indices."""
    #: The palette indices that one byte of the file holds.
    pixels = [bytes((value >> 4, value & 15)) if bits == 4 else bytes((value,)) for value in range(256)]
    width, height, at, size = header.width, header.height, header.pixels_at, len(data)
    x = y = 0
    while y < height:
        if at + 2 > size:
            raise UndecodableError(_TRUNCATED)
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            run = (pixels[value] * count)[: min(count, width - x)]
        elif value == 0:
            x, y = 0, y + 1
            continue
        elif value == 1:
            return
        elif value == 2:
            if at + 2 > size:
                raise UndecodableError(_TRUNCATED)
            x, y = min(x + data[at], width), y + data[at + 1]
            at += 2
            continue
        else:
            length = (value * bits + 7) // 8
            run = b"".join([pixels[byte] for byte in data[at : at + length]])[:value]
            if len(run) < value:
                raise UndecodableError(_TRUNCATED)
            run = run[: width - x]
            at += length + length % 2
        yield y * width + x, run
        x += len(run)
