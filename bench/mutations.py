"""Requests that are a little wrong, drawn from a seed: ``fuzz.py`` sends them.

A request is made of a picture, a body around it and the lines of HTTP around that. Each of the three may be damaged: in
its bytes, or in its structure, such as a chunk whose checksum is made right again, so that decoders look further. The
same seed and number make the same request.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

_IMAGES = Path(__file__).parents[1] / "docs" / "images"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Numbers at which programs go wrong.
_EDGES = (0, 1, 2, 3, 7, 8, 127, 128, 254, 255, 256, 32767, 32768, 65535, 65536, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_LARGEST = 200_000
#: The end of a JPEG's entropy-coded data.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


@dataclass(frozen=True, slots=True)
class Request:
    """One request of HTTP/1.1."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    head: bytes | None = None
    """The damaged head in place of method, target and headers; then anything may be the answer, or nothing."""
    kind: str = ""
    """What was done, for the report."""

    @property
    def is_http(self) -> bool:
        """Whether the request is HTTP as its RFC has it, so that an answer is due."""
        return self.head is None

    def raw(self) -> bytes:
        if self.head is not None:
            return self.head + self.body
        lines = [f"{self.method} {self.target} HTTP/1.1".encode("latin-1"), b"Host: localhost"]
        lines += [name + b": " + value for name, value in self.headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def request(seed: int, number: int) -> Request:
    """The request of that number."""
    draw = random.Random(f"{seed} {number}")  # noqa: S311 - not for secrets
    way = draw.random()
    if way < 0.62:
        return _classify(draw, _picture(draw), plain=True)
    if way < 0.85:
        return _classify(draw, _picture(draw) if draw.random() < 0.3 else draw.choice(corpus()), plain=False)
    if way < 0.97:
        return _other_path(draw)
    return _damaged_head(draw)


# --- pictures


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


def _picture(draw: random.Random) -> bytes:
    """A picture of the corpus, damaged one to three times."""
    data = draw.choice(corpus())
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice((_in_structure, _in_structure, _in_bytes))(draw, data)
    return data[:_LARGEST]


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
    return _in_bytes(draw, data)


def _in_bytes(draw: random.Random, data: bytes) -> bytes:
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
        return _in_bytes(draw, data)
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
        return [*parts[:at], (name, _in_bytes(draw, body)), *parts[at + 1 :]]
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
        return _in_bytes(draw, data)
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
        return _in_bytes(draw, data)
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
    return head + _in_bytes(draw, rest)


def _change_bmp(draw: random.Random, data: bytes) -> bytes:
    """Sets one of the fields of the headers to another number."""
    at, size = draw.choice(((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4)))
    near = (1, 2, 4, 8, 12, 16, 24, 32, 40, 56, 64, 108, 124, -44, 44, -1, *_EDGES)
    number = draw.choice(near)
    packed = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    return data[:at] + packed + data[at + size :]


# --- bodies and heads


_MODELS = (*["lenet5"] * 4, "lenet5@mnist", "LENET5", "lenet5@cifar10", "googlenet", "vgg16", "resnet", "")


def _query(draw: random.Random) -> str:
    if draw.random() < 0.7:
        return "?model=lenet5"
    pairs = [
        ("model", draw.choice(_MODELS)),
        ("k", draw.choice(("1", "5", "10", "0", "11", "-1", "1e1", "٣", "", "5.0", "99999999999999999999"))),
        ("latency_ms", draw.choice(("50", "20000", "0", "-1", "nan", "inf", "1e400", "1e-9", ""))),
        ("memory_mb", draw.choice(("100", "1e9", "0", "NaN", "-5"))),
        ("min_top1", draw.choice(("50", "99.4", "100", "101", "-1", "x"))),
        ("labels", draw.choice(("mnist", "cifar10", "imagenet1k", "coco", "\0"))),
        ("strict", draw.choice(("true", "false", "1", "maybe"))),
        ("model", f"ensemble:{draw.choice(_MODELS)},{draw.choice(_MODELS)}"),
        (draw.choice(("x", "Model", "k ", "\u00e9", "a" * 900)), draw.choice(("1", "\r\n", "%", "\ud83d"[:0]))),
    ]
    chosen = [("model", "lenet5")] * (draw.random() < 0.6) + draw.sample(pairs, draw.choice((1, 1, 2, 4)))
    text = "&".join(f"{quote(name)}={quote(value)}" for name, value in chosen)
    return "?" + (text if draw.random() < 0.9 else text.replace("=", draw.choice(("", "==", "%", "%zz", "&"))))


def _classify(draw: random.Random, picture: bytes, *, plain: bool) -> Request:
    """A request to classify: the picture as it is, or in a body whose structure may be damaged."""
    if plain:
        kind = draw.choice((b"application/octet-stream", b"image/png", b"application/x-www-form-urlencoded", b""))
        return _sent(draw, "/classify" + _query(draw), [(b"Content-Type", kind)], picture, "picture")
    kind, body, name = draw.choice((_multipart, _multipart, _as_json, _as_json, _encoded))(draw, picture)
    headers = [(b"Content-Type", kind)]
    if name.startswith("encoded"):
        encodings = b"gzip", b"deflate", b"br", b"gzip, gzip", b"x-gzip", b"identity"
        headers.append((b"Content-Encoding", draw.choice(encodings)))
    if draw.random() < 0.25:
        body = _in_bytes(draw, body)
    return _sent(draw, "/classify" + _query(draw), headers, body[:_LARGEST], name)


def _sent(draw: random.Random, target: str, headers: list[tuple[bytes, bytes]], body: bytes, name: str) -> Request:
    """Adds a length, or sends the body in chunks."""
    if draw.random() < 0.1:
        headers.append(draw.choice(_HEADERS))
    if draw.random() < 0.06:
        headers.append((b"Transfer-Encoding", b"chunked"))
        cut = draw.randrange(len(body) + 1)
        parts = [part for part in (body[:cut], body[cut:]) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        headers.append((b"Content-Length", b"%d" % len(body)))
    return Request("POST", target, tuple(headers), body, kind=name)


_HEADERS = (
    (b"Accept", b"text/html;q=x, */*"),
    (b"Accept-Encoding", b"\xff\xfe"),
    (b"X-Request-ID", b"a" * 300),
    (b"X-Request-ID", b"\xe2\x80\xa8{}%s"),
    (b"Authorization", b"Bearer "),
    (b"Authorization", b"Basic \xff\xff"),
    (b"X-API-Key", b"\xc3\xa9"),
    (b"Origin", b"null"),
    (b"Cookie", b"a=b; " * 100),
    (b"Expect", b"100-continue"),
    (b"Range", b"bytes=5-1"),
    (b"Traceparent", b"00-zz-zz-01"),
    (b"X-Forwarded-For", b"1.2.3.4, ::ffff:999"),
    (b"serve_multiplexed_model_id", b"x"),
    (b"x-request-timeout-seconds", b"nan"),
)


_BOUNDARIES = (b"abc", b"----WebKitFormBoundary0", b"a b", b"=_x'()+,-./:?", b"x" * 70, b"x" * 200, b"")
_FIELDS = (b"image", b"", b"\xff", b"a" * 2000, b'"', b"%00")
_FILES = (
    *[b'; filename="a.png"'] * 4,
    b"; filename*=UTF-8''%e2%82",
    b"; filename=a",
    b'; filename=""',
    b'; filename="\xff\\"',
    b"",
)
_PART_HEADERS = (
    b"",
    b"",
    b"Content-Type: image/png; charset=punycode",
    b"Content-Transfer-Encoding: base64",
    b"Content-Transfer-Encoding: quoted-printable",
    b"no colon",
    b"A: " + b"b" * 9000,
)
_MULTIPART_TYPES = (
    *[b"multipart/form-data; boundary=%b"] * 4,
    b'multipart/form-data; boundary="%b"',
    b"multipart/form-data; charset=punycode; boundary=%b",
    b"multipart/form-data; boundary=%b; boundary=y",
    b"multipart/form-data; boundary*=%b",
    b"multipart/mixed; boundary=%b",
    b"Multipart/Form-Data;Boundary=%b",
)


def _multipart(draw: random.Random, picture: bytes) -> tuple[bytes, bytes, str]:
    boundary, line = draw.choice(_BOUNDARIES), draw.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
    body = b""
    for at in range(draw.choice((1, 1, 1, 2, 3, 70))):
        part = picture if at < 3 else b"small"
        more = draw.choice(_PART_HEADERS)
        if more.endswith(b"base64"):
            part = base64.b64encode(part)
        lines = [b'Content-Disposition: form-data; name="%b"%b' % (draw.choice(_FIELDS), draw.choice(_FILES))]
        if more:
            lines.append(more)
        body += b"--" + boundary + line + line.join(lines) + line + line + part + line
    body += b"--" + boundary + b"--" + line
    if draw.random() < 0.15:
        body = body[: -draw.randrange(1, 40)]
    return draw.choice(_MULTIPART_TYPES) % boundary, body, "multipart"


_JSON_TYPES = (
    *[b"application/json"] * 4,
    b"application/json; charset=utf-16",
    b"text/json",
    b"application/x+json",
    b"application/json; charset=punycode",
)
_JSON_TEXTS = (
    b"[" * 5000,
    b'{"image":' * 3000,
    b'{"image": 1' + b"0" * 5000 + b"}",
    b'{"image": NaN}',
    b'{"image": "\\ud800"}',
    b'{"image": "a", "image": "b"}',
    b"\xff\xfe{}",
)
_TO_TEXT: tuple[Callable[[bytes], bytes], ...] = (
    *[base64.b64encode] * 3,
    base64.urlsafe_b64encode,
    base64.encodebytes,
    base64.b32encode,
)


def _as_json(draw: random.Random, picture: bytes) -> tuple[bytes, bytes, str]:
    if draw.random() < 0.1:
        return draw.choice(_JSON_TYPES), draw.choice(_JSON_TEXTS), "JSON"
    text = draw.choice(_TO_TEXT)(picture).decode()
    image = draw.choice((*[text] * 3, text.rstrip("="), f"data:image/png;base64,{text}", f"data:,{text}", text[:-1]))
    wrong: list[object] = [None, 1, -0.5, True, [], {}, [image], {"image": image}, "", 1e308, "\0", "é"]
    value = draw.choice(
        (
            *[{"image": image}] * 4,
            {"images": [image] * draw.choice((1, 2, 5, 64, 65))},
            {"images": [draw.choice([image, *wrong]) for _ in range(5)]},
            {"image": draw.choice(wrong)},
            {"images": draw.choice(wrong)},
            {"image": image, "images": [image]},
            {"image": image, draw.choice(("x", "Image", "", "model")): draw.choice(wrong)},
            draw.choice(wrong),
        )
    )
    body = json.dumps(value).encode(draw.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")))
    return draw.choice(_JSON_TYPES), body, "JSON"


def _encoded(draw: random.Random, picture: bytes) -> tuple[bytes, bytes, str]:
    packed = gzip.compress(picture, mtime=0)
    bomb = gzip.compress(bytes(3_000_000), mtime=0)
    body = draw.choice((packed, zlib.compress(picture), bomb, picture, gzip.compress(packed, mtime=0)))
    return b"application/octet-stream", body, "encoded"


_PATHS = (
    "/models",
    "/models/lenet5",
    "/models/lenet5/load",
    "/models/googlenet@cifar10/load",
    "/models/lenet5/unload",
    "/models/nothing/unload?wait=true",
    "/route?model=lenet5",
    "/route",
    "/route?latency_ms=50",
    "/healthz",
    "/readyz",
    "/metrics",
    "/metrics/targets",
    "/problems",
    "/problems/overloaded",
    "/problems/nothing",
    "/docs",
    "/openapi.json",
    "/",
    "/classify",
    "/classify/",
    "//classify",
    "/../etc/passwd",
    "/models/%00",
    "/models/%ff%fe",
    "/models/" + "a" * 3000,
    "/-/routes",
    "/nothing?x=1",
)
_METHODS = ("GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND")


def _other_path(draw: random.Random) -> Request:
    method, target = draw.choice(_METHODS), draw.choice(_PATHS)
    if draw.random() < 0.15:
        target += quote(draw.choice(("?", "&", "/", "")) + draw.randbytes(3).decode("latin-1"), safe="?&/=")
    headers = [draw.choice(_HEADERS)] if draw.random() < 0.3 else []
    # A client that waits for 100 Continue sends a body.
    headers = [header for header in headers if header[0] != b"Expect"]
    body = b""
    if method in ("POST", "PUT", "PATCH"):
        body = draw.choice((b"", b"", b"{}", b"x" * 3000))
        headers.append((b"Content-Length", b"%d" % len(body)))
    return Request(method, target, tuple(headers), body, kind="path")


def _damaged_head(draw: random.Random) -> Request:
    """A head that is no HTTP any more, or contradicts itself."""
    body = draw.choice(corpus())
    lines = [b"POST /classify?model=lenet5 HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body)]
    extra = draw.choice(
        (
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Content-Type: multipart/form-data",
            b"Content-Type: multipart/form-data; boundary=\xff",
            b"A" * 70_000,
            b"X: " + b"y" * 70_000,
            b": empty",
            b" folded",
            b"No colon",
            b"Host: other",
            b"\0: \0",
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
        )
    )
    head = b"\r\n".join((*lines, extra)) + b"\r\n\r\n"
    if draw.random() < 0.6:
        head = _in_bytes(draw, b"\r\n".join(lines) + b"\r\n\r\n")
    return Request("POST", "/classify", (), body, head=head, kind="damaged head")
