"""Picture files made byte by byte: what no encoder at hand writes, and what callers post all the same."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.images.pictures import TooManyPartsError, decode

Samples = npt.NDArray[np.integer[Any]]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Slopes, which JPEG keeps well, with some noise, so that files have some length.
SCENE = (
    np.random.default_rng(3).integers(0, 12, (40, 56, 3)) + np.mgrid[0:160:4, 0:56].transpose(1, 2, 0)[..., [0, 1, 0]]
)
#: PNG's colour types.
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
#: Left, top and steps of the seven passes of an interlaced PNG.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def encode(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes = b"", *, checksum: int | None = None) -> bytes:
    """A chunk of a PNG file."""
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(
    samples: Samples,
    depth: int = 8,
    colour: int = RGB,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG file of samples (height, width, samples a pixel), with more chunks before, between and after its data."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    passes = [samples[top::down, left::across] for left, top, across, down in ADAM7] if interlaced else [samples]
    rows = [b"\0" + packed(row, depth) for part in passes if part.size for row in part]
    data = zlib.compress(b"".join(rows))
    half = len(data) // 2
    pixels = chunk(b"IDAT", data[:half]) + between + chunk(b"IDAT", data[half:])
    return SIGNATURE + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND")


def packed(row: Samples, depth: int) -> bytes:
    """Samples of a row as a PNG has them: 1 to 16 bits each, the first in the highest bits."""
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def segment(marker: int, body: bytes = b"") -> bytes:
    """A segment of a JPEG file."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    """A JPEG file with more segments, right behind its start."""
    return jpeg[:2] + segments + jpeg[2:]


def exif(orientation: int, *, order: str = ">", kind: int = 3) -> bytes:
    """EXIF data with nothing but an orientation, as a SHORT or another type of number."""
    value = struct.pack(order + "HH", orientation, 0) if kind == 3 else struct.pack(order + "I", orientation)
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)


def scans(jpeg: bytes) -> list[tuple[int, int]]:
    """Where the scans of a JPEG file without thumbnails begin (with the tables before them) and end."""
    at, tables, found = 2, None, []
    while jpeg[at + 1] != 0xD9:
        marker, end = jpeg[at + 1], at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xC4 and tables is None and found:
            tables = at
        if marker == 0xDA:
            while not (jpeg[end] == 0xFF and jpeg[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
            found.append((at if tables is None else tables, end))
            tables = None
        at = end
    return found


def many_scans(picture: Image.Image, more: int, **options: Any) -> bytes:
    """A progressive JPEG whose last scan, which brings nothing new on a flat picture, is there so many times more."""
    jpeg = encode(picture, "JPEG", progressive=True, **options)
    start, end = scans(jpeg)[-1]
    return jpeg[:end] + jpeg[start:end] * more + jpeg[end:]


def scan_by_scan(
    side: int,
    more: int,
    *,
    before_marker: bytes = b"",
    within: bytes = b"",
    start_of_frame: int = 0xC1,
    interval: int = 0,
) -> bytes:
    """A sequential colour JPEG with a scan for each component, the last of them again and again."""
    tables = segment(0xDB, bytes([0] + [16] * 64))
    frame = segment(start_of_frame, struct.pack(">BHHB", 8, side, side, 3) + b"\1\x11\0\2\x11\0\3\x11\0")
    if interval:
        tables += segment(0xDD, interval.to_bytes(2, "big"))
    # One code each, of one bit: no difference, end of block.
    codes = segment(0xC4, b"\0\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10\1" + bytes(15) + b"\0")
    # Two bits a block.
    blocks = bytes(((side + 7) // 8) ** 2 * 2 // 8 + 1)
    scan = [before_marker + segment(0xDA, bytes((1, name, 0, 0, 63, 0))) + blocks + within for name in (1, 2, 3)]
    return b"\xff\xd8" + tables + frame + codes + b"".join(scan) + scan[2] * more + b"\xff\xd9"


def bmp(header: bytes, pixels: bytes, palette: bytes = b"") -> bytes:
    """A BMP file of a second header (with its masks), palette and pixels."""
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


def bmp_header(
    width: int,
    height: int,
    bits: int,
    compression: int = 0,
    *,
    length: int = 40,
    masks: tuple[int, ...] = (),
    colours: int = 0,
) -> bytes:
    """The second header, of a version that its length tells; with 40 bytes the masks follow it."""
    head = struct.pack("<IiiHHIIiiII", length, width, height, 1, bits, compression, 0, 2835, 2835, colours, 0)
    head += struct.pack(f"<{len(masks)}I", *masks)
    return head if length == 40 else head.ljust(length, b"\0")


def bottom_up(rows: npt.NDArray[Any]) -> bytes:
    """Rows (height, bytes) as a BMP has them: the last first, each a multiple of four bytes."""
    return b"".join(row.tobytes() + bytes(-len(row.tobytes()) % 4) for row in rows[::-1])


def gif(
    screen: tuple[int, int],
    frame: Samples,
    at: tuple[int, int],
    palette: npt.NDArray[np.uint8],
    *,
    transparent: int | None = None,
    disposal: int = 0,
    before: bytes = b"",
    claims: tuple[int, int] | None = None,
) -> bytes:
    """A GIF of one frame of indices below 128, which lies at a place on the screen."""
    height, width = frame.shape
    flags = disposal << 2 | (transparent is not None)
    control = b"\x21\xf9\x04" + bytes((flags, 0, 0, transparent or 0, 0))
    place = b"," + struct.pack("<HHHHB", *at, *(claims or (width, height)), 0)
    blocks = b"".join(bytes((len(part),)) + part for part in parts(_literal_codes(frame.tobytes()), 255))
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF6, 0, 0) + palette[:128].tobytes()
    return head + before + control + place + b"\7" + blocks + b"\0;"


def flat(side: int, mode: str = "L") -> Image.Image:
    """A square of one colour, of which every encoder makes little."""
    return Image.new(mode, (side, side), 100 if mode == "L" else "teal")


def a_square(**options: Any) -> bytes:
    """A PNG of 40x40 pixels of one grey; ``options`` are those of ``png``."""
    return png(np.full((40, 40, 3), 100), **options)


def a_frame(**options: Any) -> bytes:
    """A black GIF of 8x8 pixels; ``options`` are those of ``gif``."""
    return gif((8, 8), np.zeros((8, 8), np.uint8), (0, 0), np.zeros((128, 3), np.uint8), **options)


def parts(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _literal_codes(indices: bytes) -> bytes:
    """LZW of 7-bit indices in codes of 8 bits, with a clear code often enough that they never become longer."""
    return b"".join(b"\x80" + part for part in parts(indices, 100)) + b"\x81"


def accepted(data: bytes, max_pixels: int = 80_000_000) -> bool:
    """Whether a file's parts are few enough to be decoded."""
    try:
        decode(data, "RGB", max_pixels=max_pixels, at_least=64)
    except TooManyPartsError:
        return False
    return True
