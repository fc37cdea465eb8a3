"""Requests that are a little wrong, drawn from a seed: ``fuzz.py`` sends them.

A request is made of a picture (``damaged_pictures.py``), a body around it (``damaged_bodies.py``) and the lines of HTTP
around that. Each of the three may be damaged, in its bytes or in its structure. The same seed and number make the same
request.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from urllib.parse import quote

from damaged_bodies import as_json, encoded, multipart
from damaged_pictures import LARGEST, corpus, damaged, in_bytes


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
        return _classify(draw, damaged(draw), plain=True)
    if way < 0.85:
        return _classify(draw, damaged(draw) if draw.random() < 0.3 else draw.choice(corpus()), plain=False)
    if way < 0.97:
        return _other_path(draw)
    return _damaged_head(draw)


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
    kind, body, name = draw.choice((multipart, multipart, as_json, as_json, encoded))(draw, picture)
    headers = [(b"Content-Type", kind)]
    if name.startswith("encoded"):
        encodings = b"gzip", b"deflate", b"br", b"gzip, gzip", b"x-gzip", b"identity"
        headers.append((b"Content-Encoding", draw.choice(encodings)))
    if draw.random() < 0.25:
        body = in_bytes(draw, body)
    return _sent(draw, "/classify" + _query(draw), headers, body[:LARGEST], name)


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
        head = in_bytes(draw, b"\r\n".join(lines) + b"\r\n\r\n")
    return Request("POST", "/classify", (), body, head=head, kind="damaged head")
