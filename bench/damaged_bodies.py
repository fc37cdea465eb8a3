"""Bodies around a picture that are a little wrong: forms, JSON and content codings."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable

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


def multipart(draw: random.Random, picture: bytes) -> tuple[bytes, bytes, str]:
    """A form with the picture: its Content-Type, its bytes, and what was done."""
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


def as_json(draw: random.Random, picture: bytes) -> tuple[bytes, bytes, str]:
    """The picture in JSON: as ``multipart``."""
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


def encoded(draw: random.Random, picture: bytes) -> tuple[bytes, bytes, str]:
    """The picture in a content coding, right or wrong: as ``multipart``."""
    packed = gzip.compress(picture, mtime=0)
    bomb = gzip.compress(bytes(3_000_000), mtime=0)
    body = draw.choice((packed, zlib.compress(picture), bomb, picture, gzip.compress(packed, mtime=0)))
    return b"application/octet-stream", body, "encoded"
