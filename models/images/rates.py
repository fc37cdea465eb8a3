"""Measures what decoding takes on this machine: the rates of ``models.images.cost``.

python -m models.images.rates    prints them; the ones in cost.py were printed by it

Each rate is the difference between two pictures that differ in one thing alone: their bytes (a photograph and one
colour), their pixels, the size that they come out at.
"""

from __future__ import annotations

import io
import struct
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from models.images.cost import Rate
from models.images.jpeg import read_markers
from models.images.outline import Outline, glance, of_jpeg
from models.images.pictures import decode
from models.images.png import SIGNATURE
from models.images.preprocess import Preprocess, crop
from models.images.shrink import Shrink, shrunk, strips_of

#: Sides of the pictures, small and large.
_SMALL, _LARGE = 16, 704
_ROUNDS = 5
_TILE = 800
#: Left, top and steps of the seven passes of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def measure_rates(rounds: int = _ROUNDS) -> dict[str, Rate]:
    """The rates of this machine. Takes about a second."""
    flat, photo = (_pictures(_LARGE, kind) for kind in ("flat", "photo"))
    tiny = _pictures(_SMALL, "flat")
    rates = {kind: _rate(tiny[kind], flat[kind], photo[kind], rounds) for kind in flat}
    for kind in ("jpeg", "jpeg scans"):
        rates[kind] = _jpeg_rate(tiny[kind], flat[kind], photo[kind], rounds)
    rates["jpeg scans"] = _scans_rate(rates["jpeg scans"], flat["jpeg scans"], photo["jpeg scans"], rounds)
    for kind, thin in _one_byte_pixels(_LARGE).items():
        rates[kind] = _png_rate(rates[kind], tiny[kind], thin, flat[kind], rounds)
    rates["crop"] = _crop_rate(rounds)
    rates["large"] = _large_rate(rounds)
    return rates


def _rate(tiny: bytes, flat: bytes, photo: bytes, rounds: int) -> Rate:
    """By a tiny picture, one of few bytes and one of many."""
    file_s, flat_s, photo_s = (_best(partial(_decoded, data), rounds) for data in (tiny, flat, photo))
    least, most = _outline(flat), _outline(photo)
    byte_s = 0.0 if most.size == least.size else max(0.0, photo_s - flat_s) / (most.size - least.size)
    unit_s = max(0.0, flat_s - file_s - byte_s * least.size) / least.units
    return _rounded(file_s, byte_s, unit_s)


def _jpeg_rate(tiny: bytes, flat: bytes, photo: bytes, rounds: int) -> Rate:
    """Of a JPEG at an eighth of its size, and what its pixels take at its full size."""
    side = _LARGE // 8
    file_s, flat_s, photo_s = (_best(partial(_decoded, data, side), rounds) for data in (tiny, flat, photo))
    whole_s = _best(partial(_decoded, photo), rounds)
    least, most = _exact(flat), _exact(photo)
    byte_s = max(0.0, photo_s - flat_s) / (most.size - least.size)
    pixel_s = max(0.0, whole_s - photo_s) / (_LARGE * _LARGE - side * side)
    unit_s = max(0.0, flat_s - file_s - byte_s * least.size - pixel_s * side * side) / least.units
    return _rounded(file_s, byte_s, unit_s, pixel_s)


def _scans_rate(rate: Rate, flat: bytes, photo: bytes, rounds: int) -> Rate:
    """What a scan takes: the last one, which refines all coefficients, is there twenty times more."""
    many = flat[:-2] + flat[flat.rindex(b"\xff\xda") : -2] * 20 + flat[-2:]
    flat_s, many_s, photo_s = (_best(partial(_decoded, data, _LARGE // 8), rounds) for data in (flat, many, photo))
    least, more, most = map(_exact, (flat, many, photo))
    unit_s = max(0.0, many_s - flat_s) / (more.units - least.units)
    byte_s = max(0.0, photo_s - flat_s - unit_s * (most.units - least.units)) / (most.size - least.size)
    return _rounded(rate.file_us / 1e6, byte_s, unit_s, rate.pixel_ns / 1e9)


def _png_rate(rate: Rate, tiny: bytes, thin: bytes, thick: bytes, rounds: int) -> Rate:
    """What a PNG takes for each byte of its rows and for each pixel, by pictures of one byte a pixel and of more."""
    file_s, thin_s, thick_s = (_best(partial(_decoded, data), rounds) for data in (tiny, thin, thick))
    less, more = _outline(thin), _outline(thick)
    unit_s = max(0.0, thick_s - thin_s) / (more.units - less.units)
    pixel_s = max(0.0, thin_s - file_s - unit_s * less.units) / (less.width * less.height)
    return _rounded(file_s, rate.byte_ns / 1e9, unit_s, pixel_s)


def _crop_rate(rounds: int) -> Rate:
    """Of a photograph that is made smaller, and of a small one that is made larger."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (_LARGE, _LARGE, 3), np.uint8))
    small = picture.resize((_SMALL, _SMALL))
    least, most = (Preprocess("warp", side, side) for side in (_SMALL, 256))
    file_s = _best(partial(crop, small, least), rounds)
    large_s, from_s = _best(partial(crop, small, most), rounds), _best(partial(crop, picture, most), rounds)
    out_s = max(0.0, large_s - file_s) / most.resize**2
    return _rounded(file_s, 0.0, max(0.0, from_s - large_s) / _LARGE**2, out_s)


def _large_rate(rounds: int) -> Rate:
    """Of memory that is touched for the first time, and of strips that become small."""
    count, side = 20_000_000, 1500
    held_s = _best(lambda: b"\1" * count, rounds)
    picture = Image.new("RGB", (side, side))
    shrink = Shrink((0, 0, side, side), 4, 4)

    def plain(strip: Image.Image) -> Image.Image:
        return strip.convert("RGBA").convert("RGB")

    strips_s = _best(lambda: shrunk(strips_of(picture, shrink.edges(side, side)), plain, shrink), rounds)
    return _rounded(0.0, held_s / count, strips_s / side**2)


def _rounded(file_s: float, byte_s: float, unit_s: float, pixel_s: float = 0.0) -> Rate:
    return Rate(round(file_s * 1e6, 1), *(round(seconds * 1e9, 2) for seconds in (byte_s, unit_s, pixel_s)))


def _decoded(data: bytes, at_least: int | None = None) -> Image.Image:
    return decode(data, "RGB", max_pixels=sys.maxsize, at_least=at_least, needed=_as_it_is)


def _as_it_is(size: tuple[int, int]) -> Shrink:
    return Shrink((0, 0, *size))


def _outline(data: bytes) -> Outline:
    found = glance(data)
    assert found is not None
    return found


def _exact(jpeg: bytes) -> Outline:
    """With all scans."""
    return of_jpeg(read_markers(jpeg, most_parts=1000), jpeg)


def _best(work: Callable[[], object], rounds: int) -> float:
    """The shortest time: other work on the machine makes times longer, never shorter."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _pictures(side: int, kind: str) -> dict[str, bytes]:
    """One picture of each kind of work, of one colour or as rich as a photograph."""
    if kind == "flat":
        colour = Image.new("RGB", (side, side), "teal")
    else:
        colour = Image.open(io.BytesIO(photograph(side))).convert("RGB")
    alphas = colour.copy()
    alphas.putalpha(Image.linear_gradient("L").resize((side, side)))
    return {
        "jpeg": _encoded(colour, "JPEG", quality=90),
        "jpeg scans": _encoded(colour, "JPEG", quality=90, progressive=True),
        "png": _encoded(colour, "PNG"),
        "png alpha": _encoded(alphas, "PNG"),
        "png interlaced": _interlaced(alphas),
        "webp": _encoded(colour, "WEBP", quality=90, method=0),
        "webp lossless": _encoded(colour, "WEBP", lossless=True, method=0),
        "gif": _encoded(colour.quantize(256), "GIF"),
        "bmp": _encoded(colour, "BMP"),
        "bmp fields": _fields(colour),
        "bmp runs": _runs(side, kind == "flat"),
    }


def _one_byte_pixels(side: int) -> dict[str, bytes]:
    colours = Image.new("P", (side, side))
    colours.putpalette([9, 99, 199] * 256)
    return {
        "png": _encoded(Image.new("L", (side, side)), "PNG"),
        "png alpha": _encoded(colours, "PNG", transparency=bytes(range(256))),
    }


def _encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def _interlaced(picture: Image.Image) -> bytes:
    """An interlaced PNG, which Pillow does not write."""
    pixels = np.asarray(picture)
    passes = [pixels[top::down, left::across] for left, top, across, down in _ADAM7]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", *picture.size, 8, 6, 0, 0, 1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"".join((SIGNATURE, *chunks))


def _bmp(size: tuple[int, int], bits: int, compression: int, body: bytes, tables: bytes) -> bytes:
    start = 14 + 40 + len(tables)
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + tables + body


def _fields(picture: Image.Image) -> bytes:
    """A BMP of 16 bits a pixel whose masks Pillow does not know."""
    masks = struct.pack("<III", 0xF, 0xF0, 0xF00)
    width, height = picture.size
    return _bmp(picture.size, 16, 3, bytes((2 * width + 3) // 4 * 4 * height), masks)


def _runs(side: int, long: bool) -> bytes:
    """A BMP of run lengths: as long as they may be, or of one pixel each."""
    row, rest = divmod(side, 255)
    line = b"\xff\1" * row + bytes((rest, 1)) if long else b"\1\1" * side
    return _bmp((side, side), 8, 1, (line + b"\0\0") * side + b"\0\1", bytes(1024))


def photograph(side: int) -> bytes:
    """A square JPEG about as rich in detail as a photograph: blurred shapes of all sizes, and a little noise."""
    random = np.random.default_rng(side)
    tile = min(side, _TILE)
    picture = np.zeros((tile, tile, 3), np.float32)
    for cells, strength in ((4, 60.0), (16, 40.0), (64, 20.0)):
        shapes = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        picture += np.asarray(shapes.resize((tile, tile), Image.Resampling.BICUBIC), np.float32) * (strength / 128)
    picture += random.normal(0, 3, picture.shape)
    # Large pictures are tiled: they take as long to decode, and are made quickly.
    times = -(-side // tile)
    pixels = np.tile(np.clip(picture, 0, 255).astype(np.uint8), (times, times, 1))[:side, :side]
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def main() -> int:
    """Prints the rates of this machine as ``cost.py`` has them."""
    for kind, rate in measure_rates(15).items():
        sys.stdout.write(f'    "{kind}": Rate({", ".join(f"{number:g}" for number in rate)}),\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
