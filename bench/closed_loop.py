"""A closed loop in Python, which needs no ``hey`` and takes less of the servers' cores:
``python bench/closed_loop.py URL --body FILE --content-type TYPE``.

Every connection posts the same body again as soon as it has its answer. Prints CSV, a line for each request, with hey's
names of the columns: ``response-time``, ``status-code`` and ``offset`` (when it was sent), in seconds. The status is 0
where the server closed the connection instead.
"""

from __future__ import annotations

import argparse
import csv
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

_ANSWER_WITHIN_S = 60
_MOST_BYTES = 65536
_CLOSED = 0
Row = tuple[float, int, float]
"""Response time, status, offset."""


class Caller:
    """One connection, which waits for each answer before it sends the next request.

    Args:
        address: host and port.
        request: the bytes that it sends each time.
    """

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address, _ANSWER_WITHIN_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._request = memoryview(request)

    @property
    def event(self) -> int:
        """What it waits for, as epoll calls it."""
        return select.EPOLLOUT if self._unsent else select.EPOLLIN

    def post(self, now: float) -> None:
        """Begins the next request."""
        self.sent_at, self._unsent, self._answer = now, self._request, bytearray()
        self._send()

    def go_on(self) -> int | None:
        """Sends or receives what can be sent or received now. Returns the status once the answer is complete."""
        try:
            if self._unsent:
                self._send()
                return None
            received = self.socket.recv(_MOST_BYTES)
        except ConnectionError:
            return _CLOSED
        self._answer += received
        return status_of(self._answer) if received else _CLOSED

    def _send(self) -> None:
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self.socket.send(self._unsent) :]


def status_of(answer: bytes | bytearray) -> int | None:
    """The status of an answer, or None while it is incomplete.

    Raises:
        ValueError: the answer does not say its length in advance.
    """
    head, complete, body = answer.partition(b"\r\n\r\n")
    if not complete:
        return None
    _, said, after = head.lower().partition(b"\r\ncontent-length:")
    if not said:
        raise ValueError(f"the answer has no Content-Length:\n{head.decode('latin-1')}")
    return int(head[9:12]) if len(body) >= int(after.partition(b"\r\n")[0]) else None


def request_to(url: str, body: bytes, content_type: str) -> bytes:
    """The bytes of a ``POST``."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def closed_loop(address: tuple[str, int], request: bytes, connections: int, seconds: float) -> list[Row]:
    """A row for each request. Those under way when the time is over are waited for.

    Raises:
        TimeoutError: no connection had an answer for a minute.
    """
    rows: list[Row] = []
    callers = {caller.socket.fileno(): caller for caller in (Caller(address, request) for _ in range(connections))}
    poll, began = select.epoll(), time.perf_counter()
    for number, caller in callers.items():
        caller.post(began)
        poll.register(number, caller.event)
    while callers:
        events = poll.poll(_ANSWER_WITHIN_S)
        if not events:
            raise TimeoutError(f"no answer within {_ANSWER_WITHIN_S} s")
        for number, event in events:
            caller = callers[number]
            status = caller.go_on()
            if status is not None:
                now = time.perf_counter()
                rows.append((now - caller.sent_at, status, caller.sent_at - began))
                if status == _CLOSED or now > began + seconds:
                    callers.pop(number).socket.close()
                    continue
                caller.post(now)
            if caller.event != event:
                poll.modify(number, caller.event)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--content-type", required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    parts = urlsplit(options.url)
    request = request_to(options.url, options.body.read_bytes(), options.content_type)
    rows = csv.writer(sys.stdout)
    rows.writerow(["response-time", "status-code", "offset"])
    rows.writerows(closed_loop((parts.hostname or "", parts.port or 80), request, options.connections, options.seconds))


if __name__ == "__main__":
    main()
