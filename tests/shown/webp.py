"""WebP files: lossy and lossless streams, alphas, orientations and first frames of animations."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.picture_files import (
    encode,
)
from tests.shown.scene import (
    Case,
    Pixels,
    alphas,
    disc,
    over_white,
    scene,
    stored_scene,
    turned,
)


def _riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _vp8x(flags: int, size: tuple[int, int] = (70, 45)) -> bytes:
    side = b"".join((value - 1).to_bytes(3, "little") for value in size)
    return _webp_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + side)


def _stream(picture: Pixels, *, lossless: bool) -> bytes:
    """The one chunk of a simple file."""
    made = encode(Image.fromarray(picture), "WEBP", lossless=lossless, quality=95, exact=True)
    assert made[12:16] == (b"VP8L" if lossless else b"VP8 ")
    return made[12:]


def _frame(part: bytes, at: tuple[int, int], size: tuple[int, int], flags: int = 0) -> bytes:
    place = b"".join((value // 2).to_bytes(3, "little") for value in at)
    place += b"".join((value - 1).to_bytes(3, "little") for value in size)
    return _webp_chunk(b"ANMF", place + b"\x64\0\0" + bytes((flags,)) + part)


ICC, ALPHA, EXIF, XMP, ANIMATED = 0x20, 0x10, 0x08, 0x04, 0x02


def cases() -> Iterator[Case]:
    picture, alpha, hole = scene(), alphas(), disc()
    for lossless in (False, True):
        how, lossy = ("lossless", False) if lossless else ("lossy", True)
        stream = _stream(picture, lossless=lossless)
        exif_chunk = _webp_chunk(b"EXIF", b"damaged")
        for name, data in {
            "simple": _riff(stream),
            "in an extended file": _riff(_vp8x(0), stream),
            "a profile": _riff(_vp8x(ICC), _webp_chunk(b"ICCP", bytes(501)), stream),
            "a profile that no flag announces": _riff(_vp8x(0), _webp_chunk(b"ICCP", bytes(500)), stream),
            "flags of chunks that are not there": _riff(_vp8x(ICC | EXIF | XMP), stream),
            "damaged EXIF": _riff(_vp8x(EXIF), stream, exif_chunk),
            "XMP": _riff(_vp8x(XMP), stream, _webp_chunk(b"XMP ", b"<x tiff:Orientation='6'/>")),
            "unknown chunks": _riff(_vp8x(0), _webp_chunk(b"abcd", b"1"), stream, _webp_chunk(b"efgh", bytes(99))),
            "metadata of a wrong length": _riff(_vp8x(EXIF), stream, b"EXIF" + struct.pack("<I", 10**6) + b"cut"),
            "metadata before the stream": _riff(_vp8x(EXIF), exif_chunk, _webp_chunk(b"XMP ", b"x"), stream),
            "metadata behind a simple stream": _riff(stream, exif_chunk),
            "bytes behind the end": _riff(stream) + b"\r\n--boundary--",
            "bytes behind the end of an extended file": _riff(_vp8x(0), stream) + bytes(99),
            "a length in the header that is too large": _riff(stream, size=10**6),
            "a length in the header of 0": _riff(stream, size=0),
            "no last byte of padding": _riff(_odd(stream))[:-1],
            "no last byte of padding in an extended file": _riff(_vp8x(0), _odd(stream))[:-1],
        }.items():
            yield Case(f"{how}, {name}", data, picture, lossy)
        for name, orientation, data in turned():
            stored = stored_scene(orientation)
            size = stored.shape[1], stored.shape[0]
            stream_turned = _stream(stored, lossless=lossless)
            for prefix in (b"", b"Exif\0\0"):
                made = _riff(_vp8x(EXIF, size), stream_turned, _webp_chunk(b"EXIF", prefix + data))
                yield Case(f"{how}, {name}, {'prefixed' if prefix else 'bare'}", made, picture, lossy)
        # An alpha channel of the stream, and one of a chunk of its own, neither compressed nor filtered.
        flat = over_white(picture, alpha)
        if lossless:
            rgba = Image.fromarray(np.dstack([picture, alpha.astype(np.uint8)]))
            yield Case("lossless, alphas", encode(rgba, "WEBP", lossless=True, exact=True), flat)
            holes = Image.fromarray(np.dstack([picture, np.where(hole, 0, 255).astype(np.uint8)]))
            shown = np.where(hole[..., None], 255, picture).astype(np.uint8)
            yield Case("lossless, holes", encode(holes, "WEBP", lossless=True), shown)
        else:
            plane = _webp_chunk(b"ALPH", b"\0" + alpha.astype(np.uint8).tobytes())
            yield Case("lossy, alphas", _riff(_vp8x(ALPHA), plane, stream), flat, True)
            # libwebp's demuxer, and so Chrome, clears them.
            yield Case("lossy, alphas that no flag announces", _riff(_vp8x(0), plane, stream), picture, True)
        yield from _webp_animations(lossless)


def _odd(stream: bytes) -> bytes:
    """The chunk with an odd length: with a byte that no decoder reads."""
    (length,) = struct.unpack("<I", stream[4:8])
    body = stream[8 : 8 + length]
    return _webp_chunk(stream[:4], body if length % 2 else body + b"\0")


def _webp_animations(lossless: bool) -> Iterator[Case]:
    picture = scene()
    how = "lossless" if lossless else "lossy"
    control = _webp_chunk(b"ANIM", b"\x10\x20\x30\xff\0\0")
    whole = _frame(_stream(picture, lossless=lossless), (0, 0), (70, 45))
    other = _frame(_stream(picture[::-1], lossless=lossless), (0, 0), (70, 45))
    data = _riff(_vp8x(ANIMATED), control, whole, other)
    yield Case(f"{how}, animated", data, picture, not lossless)
    yield Case(f"{how}, animated, later frames damaged", data[:-40], picture, not lossless)
    for at in ((0, 0), (10, 8), (30, 20)):
        left, top = at
        expected = np.full_like(picture, 255)
        part = picture[top : top + 25, left : left + 40]
        expected[top : top + 25, left : left + 40] = part
        frame = _frame(_stream(part, lossless=lossless), at, (40, 25))
        for flags in (ALPHA | ANIMATED, ANIMATED):
            made = _riff(_vp8x(flags), control, frame, other)
            yield Case(f"{how}, animated, first frame at {at}, {flags=}", made, expected, not lossless)
