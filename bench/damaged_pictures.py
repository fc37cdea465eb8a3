"""Pictures that are a little wrong: in their bytes, or in their structure, such as a chunk whose checksum is made right
again, so that decoders look further."""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

_IMAGES = Path(__file__).parents[1] / "docs" / "images"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Numbers at which programs go wrong.
_EDGES = (0, 1, 2, 3, 7, 8, 127, 128, 254, 255, 256, 32767, 32768, 65535, 65536, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
LARGEST = 200_000
#: The end of a JPEG's entropy-coded data.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


_CORPUS: list[bytes] = []


def corpus() -> list[bytes]:
    """Small pictures of every format and most modes."""
    if not _CORPUS:
        with Image.open(_IMAGES / "airplane.png") as opened:
            scene = opened.convert("RGB").resize((60, 44))
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010E] = "a description"
        alpha = scene.convert("RGBA")
        alpha.putalpha(Image.linear_gradient("L").resize(scene.size))
        frames = [scene.rotate(angle) for angle in (90, 180)]
        more = {"save_all": True, "append_images": frames, "duration": 50}
        made: list[tuple[Image.Image, str, dict[str, object]]] = [
            (scene, "JPEG", {}),
            (scene, "JPEG", {"progressive": True, "exif": exif}),
            (
                scene,
                "JPEG",
                {"subsampling": 0, "restart_marker_rows": 1, "icc_profile": bytes(400)},
            ),
            (scene.convert("L"), "JPEG", {"quality": 30}),
            (scene.convert("CMYK"), "JPEG", {}),
            (scene, "PNG", {"exif": exif, "icc_profile": bytes(300)}),
            (scene.convert("L"), "PNG", {"transparency": 7}),
            (scene.quantize(16), "PNG", {"transparency": 3, "bits": 4}),
            (scene.convert("1"), "PNG", {}),
            (scene.convert("I;16"), "PNG", {}),
            (alpha, "PNG", {}),
            (alpha.convert("LA"), "PNG", {}),
            (scene, "PNG", more),
            (scene.quantize(32), "GIF", {"interlace": 1, "comment": b"hello"}),
            (scene.quantize(32), "GIF", more),
            (scene, "WEBP", {"exif": exif}),
            (alpha, "WEBP", {"lossless": True}),
            (alpha, "WEBP", {"exact": True}),
            (scene, "WEBP", more),
            (scene, "BMP", {}),
            (scene.quantize(16), "BMP", {}),
            (scene.convert("1"), "BMP", {}),
            (alpha, "BMP", {}),
        ]
        for picture, kind, options in made:
            out = io.BytesIO()
            picture.save(out, kind, **options)
            _CORPUS.append(out.getvalue())
        _CORPUS.append((_IMAGES / "digit.png").read_bytes())
        _CORPUS.append(_interlaced())
        _CORPUS.append(_run_lengths())
    return _CORPUS


def _interlaced() -> bytes:
    """A PNG whose passes are all there, of 16 bits and four samples: 8 x 8 pixels."""
    rows = b"".join((b"\0" + bytes(8 * across)) * down for across, down in _PASSES)
    head = struct.pack(">IIBBBBB", 8, 8, 16, 6, 0, 0, 1)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


#: Pixels across and rows of each pass of 8 x 8 pixels.
_PASSES = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))


def _run_lengths() -> bytes:
    """A BMP of runs, literals and a jump."""
    codes = b"\x10\x05\0\0" * 8 + b"\0\4\1\2\3\4\0\2\1\1\x04\x07\0\1"
    palette = bytes(range(256)) * 4
    start = 54 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, 1, len(codes), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(codes), 0, 0, start) + head + palette + codes


def damaged(draw: random.Random) -> bytes:
    """A picture of the corpus, damaged one to three times."""
    data = draw.choice(corpus())
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice((_in_structure, _in_structure, in_bytes))(draw, data)
    return data[:LARGEST]


def _in_structure(draw: random.Random, data: bytes) -> bytes:
    for magic, change in (
        (_SIGNATURE, _change_png),
        (b"\xff\xd8", _change_jpeg),
        (b"RIFF", _change_webp),
        (b"GIF8", _change_gif),
        (b"BM", _change_bmp),
    ):
        if data.startswith(magic):
            return change(draw, data)
    return in_bytes(draw, data)


def in_bytes(draw: random.Random, data: bytes) -> bytes:
    """Damage that knows nothing of the format."""
    if not data:
        return draw.randbytes(draw.randrange(40))
    at = _place(draw, data)
    way = draw.randrange(9)
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + bytes((data[at] ^ 1 << draw.randrange(8),)) + data[at + 1 :]
    if way == 2:
        return data[:at] + draw.randbytes(draw.choice((1, 2, 4, 30))) + data[at:]
    if way == 3:
        return data[:at] + data[at + draw.choice((1, 2, 4, 30, 1000)) :]
    if way == 4:
        size, order = draw.choice((2, 4)), draw.choice(("big", "little"))
        number = (draw.choice(_EDGES) & (1 << 8 * size) - 1).to_bytes(size, order)
        return data[:at] + number + data[at + len(number) :]
    if way == 5:
        end = min(len(data), at + draw.choice((4, 20, 300)))
        return data[:end] + data[at:end] * draw.choice((1, 3, 50)) + data[end:]
    if way == 6:
        other = draw.choice(corpus())
        return data[:at] + other[_place(draw, other) :]
    if way == 7:
        return data + draw.choice((b"\0" * 100, b"\xff" * 100, b"\r\n--x--", draw.choice(corpus())))
    return data[:at] + bytes((draw.choice(_EDGES) & 0xFF,)) * draw.choice((1, 4, 64)) + data[at + 1 :]


def _place(draw: random.Random, data: bytes) -> int:
    """Half of all damage is near the beginning, where formats say what they are."""
    return draw.randrange(min(len(data), draw.choice((64, 64, 700, len(data)))))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _change_png(draw: random.Random, data: bytes) -> bytes:
    """Changes chunks, and makes their checksums right."""
    chunks, at = [], len(_SIGNATURE)
    while at + 12 <= len(data) and len(chunks) < 500:
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : end - 4]))
        at = end
    if not chunks:
        return in_bytes(draw, data)
    chunks = _change_parts(draw, chunks, _png_extra)
    made = b"".join(_chunk(kind.ljust(4)[:4], body) for kind, body in chunks)
    return _SIGNATURE + made


def _png_extra(draw: random.Random) -> tuple[bytes, bytes]:
    bomb = zlib.compress(bytes(draw.choice((10, 1_000_000, 5_000_000))), 9)
    return draw.choice(
        (
            (b"zTXt", b"Comment\0\0" + bomb),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
            (b"iCCP", b"profile\0\0" + bomb),
            (b"tRNS", draw.randbytes(draw.choice((1, 2, 6, 256, 300)))),
            (b"PLTE", draw.randbytes(draw.choice((3, 48, 767, 768, 771)))),
            (b"eXIf", _exif(draw)),
            (b"acTL", struct.pack(">II", draw.choice(_EDGES), draw.choice(_EDGES))),
            (b"fcTL", struct.pack(">IIIIIHHBB", 0, *(draw.choice(_EDGES) for _ in range(4)), 1, 1, 0, 0)),
            (b"IDAT", b""),
            (b"IDAT", bomb),
            (b"gAMA", struct.pack(">I", draw.choice(_EDGES))),
            (b"IHDR", struct.pack(">IIBBBBB", draw.choice(_EDGES), 9, *(draw.randrange(18) for _ in range(5)))),
            (b"CgBI", b"\x50\0\x20\2"),
            (draw.randbytes(4), draw.randbytes(20)),
        )
    )


def _change_parts(
    draw: random.Random,
    parts: list[tuple[bytes, bytes]],
    extra: Callable[[random.Random], tuple[bytes, bytes]],
) -> list[tuple[bytes, bytes]]:
    """Changes one of the parts of a file: its body, its name, its place, how often it comes; or puts in another."""
    at = draw.randrange(len(parts))
    name, body = parts[at]
    way = draw.randrange(7)
    if way == 0:
        return [*parts[:at], (name, in_bytes(draw, body)), *parts[at + 1 :]]
    if way == 1:
        return [*parts[:at], *parts[at + 1 :]]
    if way == 2:
        return [*parts[:at], *[parts[at]] * draw.choice((2, 3, 40)), *parts[at + 1 :]]
    if way == 3:
        other = draw.randrange(len(parts))
        moved = [*parts]
        moved[at], moved[other] = moved[other], moved[at]
        return moved
    if way == 4:
        return [*parts[:at], (name, b""), *parts[at + 1 :]]
    if way == 5:
        return [*parts[:at], (name, body[:2] + struct.pack(">I", draw.choice(_EDGES)) + body[6:]), *parts[at + 1 :]]
    return [*parts[:at], *[extra(draw)] * draw.choice((1, 1, 30)), *parts[at:]]


def _exif(draw: random.Random) -> bytes:
    """A directory with an orientation and other entries, some of which lead nowhere or in a circle."""
    order = draw.choice("<>")
    count = draw.choice((1, 2, 5, 40))
    entries = b"".join(
        struct.pack(
            order + "HHII",
            draw.choice((0x0112, 0x8769, 0x8825, 0x014A, 0x010E, draw.randrange(65536))),
            draw.randrange(14),
            draw.choice(_EDGES),
            draw.choice((draw.choice(_EDGES), 6 << 16, 6, 8)),
        )
        for _ in range(count)
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IH", draw.choice((8, 8, 8, 0, 2**31)), draw.choice((count, 65535))) + entries


def _change_jpeg(draw: random.Random, data: bytes) -> bytes:
    """Changes segments; what a scan holds goes with its header."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and len(segments) < 500:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:
            marker = _MARKER.search(data, end)
            end = len(data) if marker is None else marker.start()
            segments.append((b"", data[at:end]))
        else:
            segments.append((data[at : at + 2], data[at + 4 : end]))
        at = end
    if not segments:
        return in_bytes(draw, data)
    changed = _change_parts(draw, segments, _jpeg_extra)
    made = b"\xff\xd8"
    for name, body in changed:
        part = body[:65533]
        made += name + struct.pack(">H", len(part) + 2) + part if name else body
    return made + data[at:]


def _jpeg_extra(draw: random.Random) -> tuple[bytes, bytes]:
    return draw.choice(
        (
            (b"\xff\xe1", b"Exif\0\0" + _exif(draw)),
            (b"\xff\xe2", b"ICC_PROFILE\0\1\1" + draw.randbytes(60)),
            (b"\xff\xe2", b"MPF\0" + _exif(draw)),
            (b"\xff\xed", b"Photoshop 3.0\x008BIM" + draw.randbytes(30)),
            (b"\xff\xee", b"Adobe\0\x64\0\0\0\0" + bytes((draw.randrange(4),))),
            (b"\xff\xe0", b"JFIF\0\1\1\0\0\1\0\1" + draw.randbytes(2)),
            (b"\xff\xdb", bytes((draw.randrange(256),)) + draw.randbytes(64)),
            (b"\xff\xc4", draw.randbytes(30)),
            (b"\xff\xdd", draw.randbytes(2)),
            (b"\xff\xc0", b"\x08" + draw.randbytes(5) + b"\3\1\x22\0\2\x11\0\3\x11\0"),
            (b"\xff\xc9", b"\x08" + draw.randbytes(5) + b"\1\1\x11\0"),
            (b"\xff\xfe", draw.randbytes(40)),
            (bytes((0xFF, draw.randrange(1, 255))), draw.randbytes(9)),
        )
    )


def _change_webp(draw: random.Random, data: bytes) -> bytes:
    chunks, at = [], 12
    while at + 8 <= len(data) and len(chunks) < 500:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    if not chunks:
        return in_bytes(draw, data)
    body = b"".join(
        kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2)
        for kind, part in _change_parts(draw, chunks, _webp_extra)
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _webp_extra(draw: random.Random) -> tuple[bytes, bytes]:
    return draw.choice(
        (
            (b"EXIF", _exif(draw)),
            (b"ICCP", draw.randbytes(50)),
            (b"XMP ", draw.randbytes(50)),
            (b"ALPH", draw.randbytes(200)),
            (b"ANIM", draw.randbytes(6)),
            (b"ANMF", draw.randbytes(40)),
            (b"VP8X", draw.randbytes(10)),
            (draw.randbytes(4), draw.randbytes(20)),
        )
    )


def _change_gif(draw: random.Random, data: bytes) -> bytes:
    """Puts blocks in before the first picture, or changes the numbers of the screen."""
    table = 3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0
    head, rest = data[: 13 + table], data[13 + table :]
    way = draw.randrange(4)
    if way == 0:
        extension = b"\x21" + bytes((draw.choice((0xF9, 0xFE, 0xFF, 0x01, draw.randrange(256))),))
        return head + (extension + b"\4" + draw.randbytes(4) + b"\0") * draw.choice((1, 2, 2000)) + rest
    if way == 1:
        return (
            head[:6] + struct.pack("<HH", draw.choice(_EDGES) & 0xFFFF, draw.choice(_EDGES) & 0xFFFF) + head[10:] + rest
        )
    if way == 2 and b"," in rest:
        at = rest.index(b",")
        numbers = struct.pack("<4H", *(draw.choice((0, 1, 30, 44, 60, 65535)) for _ in range(4)))
        return head + rest[: at + 1] + numbers + rest[at + 9 :]
    return head + in_bytes(draw, rest)


def _change_bmp(draw: random.Random, data: bytes) -> bytes:
    """Sets one of the fields of the headers to another number."""
    at, size = draw.choice(((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4)))
    near = (1, 2, 4, 8, 12, 16, 24, 32, 40, 56, 64, 108, 124, -44, 44, -1, *_EDGES)
    number = draw.choice(near)
    packed = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    return data[:at] + packed + data[at + size :]
