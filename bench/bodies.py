"""How long the answer to a hostile body takes: ``python bench/bodies.py [--fleet solo] [--bodies NAME ...]``.

Starts a service that has LeNet-5 and GoogLeNet, and sends it one body at a time: far too large, with ten thousand
parts, nested, compressed, without an end. Prints for each body its statuses, and the median and worst of two times:
from the last byte that was sent to the end of the answer, and from the connection's begin to the same. The client stops
sending when the answer begins: a service may refuse before it has read everything. Where a service stops reading and
does not answer, the client's last byte lies long ago.

Exits with 1 if an answer took more than 100 ms after the last byte, was a 500, or did not come.
"""

from __future__ import annotations

import argparse
import base64
import random
import select
import socket
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import hostile
import load
from running import Service, fleet_of

#: The target.
_MOST_MS = 100.0
#: How long an answer is waited for, and how much is sent at once.
_WITHIN_S = 20.0
_PIECE = 256 * 1024
#: Between two bodies: the service reads on for a while where it has refused.
_PAUSE_S = 0.2

_PATH = b"/classify?model=lenet5"
_JSON = b"Content-Type: application/json"
_FORM = b"Content-Type: " + hostile.FORM
#: Just below the limit on bodies, and above it.
_SIZE, _TOO_LARGE = 19_000_000, 40_000_000

#: The pieces of a request, which may have no end.
Pieces = Iterable[bytes]


def _whole(body: bytes, *headers: bytes) -> Pieces:
    return [hostile.post(_PATH, body, *headers)]


def _chunked(pieces: Pieces, *headers: bytes) -> Iterator[bytes]:
    """A body without a Content-Length, a chunk for each piece."""
    yield b"\r\n".join(
        [b"POST " + _PATH + b" HTTP/1.1", b"Host: localhost", b"Transfer-Encoding: chunked", *headers, b"", b""]
    )
    for piece in pieces:
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _get(*headers: bytes) -> Pieces:
    return [b"\r\n".join([b"GET /healthz HTTP/1.1", b"Host: localhost", *headers, b"", b""])]


def _picture(size: int) -> bytes:
    """A picture of so many bytes: a digit, with noise behind its end."""
    digit = load.DIGIT.read_bytes()
    return digit + random.Random(load.SEED).randbytes(size - len(digit))  # noqa: S311 - not for secrets


def _image(text: bytes) -> Pieces:
    return _whole(b'{"image": "' + text + b'"}', _JSON)


def _base64() -> bytes:
    return base64.b64encode(_picture(_SIZE * 3 // 4))


def _encoded(encoding: bytes, content: bytes) -> Pieces:
    """A form of one file with a transfer encoding."""
    part = hostile.file(content)
    return _whole(hostile.form([b"Content-Transfer-Encoding: " + encoding + b"\r\n" + part]), _FORM)


def _in_lines() -> bytes:
    """Base64 as mail folds it, in JSON's escapes."""
    text = base64.b64encode(_picture(_SIZE * 2 // 3))
    return b"\\r\\n".join(text[start : start + 76] for start in range(0, len(text), 76))


def _cut_off(form: bytes) -> bytes:
    """A form without its last boundary."""
    return form[: form.rindex(b"\r\n--")]


def _repeated(text: bytes) -> bytes:
    return text * (_SIZE // len(text))


#: What is sent, by its name.
BODIES: dict[str, Callable[[], Pieces]] = {
    "40 MB": lambda: _whole(bytes(_TOO_LARGE)),
    "40 MB in chunks": lambda: _chunked([bytes(1 << 16)] * (_TOO_LARGE >> 16)),
    "no end": lambda: _chunked(repeat(bytes(1 << 16))),
    "tiny chunks": lambda: [b"".join(_chunked([b"a"] * 500_000))],
    "picture of 19 MB": lambda: _whole(_picture(_SIZE)),
    "base64": lambda: _image(_base64()),
    "base64 in lines": lambda: _image(_in_lines()),
    "base64 percented": lambda: _image(b"data:image/png;base64," + _repeated(b"%2B%2F")),
    "text": lambda: _image(_repeated(b"no base64, and long. ")),
    "text of escapes": lambda: _image(_repeated(rb"\u0041")),
    "text not ASCII": lambda: _image(_repeated("\N{EURO SIGN}".encode())),
    "text not UTF-8": lambda: _image(b"A" * _SIZE + b"\xff"),
    "text without end": lambda: _whole(b'{"image": "' + b"A" * _SIZE, _JSON),
    "white space": lambda: _whole(b" " * _SIZE + b"{}", _JSON),
    "long name": lambda: _whole(b'{"' + b"a" * _SIZE + b'": 1}', _JSON),
    "deep": lambda: _whole(hostile.deep_json(_SIZE), _JSON),
    "deep objects": lambda: _whole(b'{"images": ' + _repeated(b'{"a":'), _JSON),
    "wide": lambda: _whole(hostile.wide_json(_SIZE), _JSON),
    "long number": lambda: _whole(b'{"image": ' + b"1" * _SIZE + b"}", _JSON),
    "10,000 files": lambda: _whole(hostile.form([hostile.file(b"a")] * 10_000), _FORM),
    "10,000 fields": lambda: _whole(hostile.form([hostile.field(b"a")] * 10_000), _FORM),
    "field of 19 MB": lambda: _whole(hostile.form([hostile.field(b"a" * _SIZE)]), _FORM),
    "file of 19 MB": lambda: _whole(hostile.form([hostile.file(_picture(_SIZE))]), _FORM),
    "part in base64": lambda: _encoded(b"base64", _base64()),
    "part in quotes": lambda: _encoded(b"quoted-printable", _repeated(b"=41")),
    "form cut off": lambda: _whole(_cut_off(hostile.form([hostile.file(bytes(_SIZE))])), _FORM),
    "form without end": lambda: _chunked(
        repeat(_cut_off(hostile.form([hostile.file(bytes(1 << 16))])) + b"\r\n"), _FORM
    ),
    "endless boundary": lambda: _whole(b"--boundary" + b"-" * _SIZE, _FORM),
    "near boundaries": lambda: _whole(hostile.form([hostile.file(_repeated(b"\r\n--boundarx"))]), _FORM),
    "no boundary": lambda: _whole(_repeated(b"\r\n--"), _FORM),
    "long boundary": lambda: _whole(b"a", b"Content-Type: multipart/form-data; boundary=" + b"a" * 10_000),
    "headers of a part": lambda: _whole(hostile.form([b"X-Filler: a\r\n" * 1_000_000 + b"\r\n"]), _FORM),
    "gzip bomb": lambda: _whole(hostile.gzip_bomb(), b"Content-Encoding: gzip"),
    "gzip of 10,000": lambda: _whole(hostile.gzip_bomb(0) * 10_000, b"Content-Encoding: gzip"),
    "1 MB of headers": lambda: _get(*[b"X-Filler: " + b"a" * 87] * 10_000),
    "header of 1 MB": lambda: _get(b"X-Filler: " + b"a" * 1_000_000),
}


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one body."""

    status: str
    """``lost`` if the connection ended, or stayed, without an answer."""
    after_ms: float
    """From the last byte that was sent to the end of the answer."""
    whole_ms: float
    """From the connection's begin."""


def sent(port: int, pieces: Pieces) -> Answered:
    """Sends a request, and listens while it does."""
    with socket.create_connection(("127.0.0.1", port), timeout=_WITHIN_S) as connection:
        began = time.perf_counter()
        connection.setblocking(False)
        answer, last = _exchanged(connection, pieces, began + _WITHIN_S)
        ended = time.perf_counter()
    return Answered(_status(answer), (ended - last) * 1000, (ended - began) * 1000)


def _exchanged(connection: socket.socket, pieces: Pieces, give_up: float) -> tuple[bytes, float]:
    """Returns the answer, and when the last byte was sent before it began."""
    answer, left, last = b"", _views(pieces), time.perf_counter()
    piece: memoryview | None = next(left)
    while not _complete(answer) and (now := time.perf_counter()) < give_up:
        sending = piece is not None and not answer
        readable, writable, _ = select.select([connection], [connection] * sending, [], give_up - now)
        try:
            if readable:
                received = connection.recv(1 << 16)
                if not received:
                    break
                answer += received
            elif writable and piece is not None:
                count = connection.send(piece)
                last = time.perf_counter()
                piece = piece[count:] if count < len(piece) else next(left, None)
        except ConnectionError:
            # A service that closes while it is sent to may have answered before.
            piece = None
            if readable:
                break
    return answer, last


def _views(pieces: Pieces) -> Iterator[memoryview]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]


def _complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= int(lengths[0] if lengths else 0)


def _status(answer: bytes) -> str:
    return answer.split(b" ", 2)[1].decode() if _complete(answer) else "lost"


def right(found: list[Answered]) -> bool:
    """Whether a body was answered as it should be in all rounds."""
    return all(one.status != "lost" and int(one.status) < 500 and one.after_ms <= _MOST_MS for one in found)


def show(name: str, found: list[Answered]) -> str:
    """A line for people."""
    counts = Counter(one.status for one in found)
    statuses = ", ".join(status if len(counts) == 1 else f"{status} x{count}" for status, count in counts.items())
    times = []
    for milliseconds in ([one.after_ms for one in found], [one.whole_ms for one in found]):
        times.append(f"{statistics.median(milliseconds):8.1f} {max(milliseconds):8.1f}")
    return f"{name:18} {'  ' if right(found) else '! '}{'   '.join(times)}   {statuses}"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fleet", choices=["solo", "local"], default="solo")
    parser.add_argument("--bodies", nargs="+", choices=BODIES, default=list(BODIES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(None if arguments is None else list(arguments))
    all_right = True
    with tempfile.TemporaryDirectory() as folder:
        fleet = fleet_of(("lenet5", "googlenet"), Path(folder), ray=options.fleet == "local")
        service = Service("--untrained", "--fleet", str(fleet))
        service.start(within_s=600)
        try:
            sent(service.port, _whole(load.DIGIT.read_bytes()))
            print(f"{'ms':21}after the last byte            in all\n{'':22}median    worst     median    worst")
            for name in options.bodies:
                found, pieces = [], BODIES[name]()
                for number in range(options.rounds):
                    if number and not isinstance(pieces, list):
                        pieces = BODIES[name]()
                    time.sleep(_PAUSE_S)
                    found.append(sent(service.port, pieces))
                print(show(name, found), flush=True)
                all_right = all_right and right(found)
        finally:
            service.stop()
    raise SystemExit(0 if all_right else 1)


if __name__ == "__main__":
    main()
