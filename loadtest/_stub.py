"""A stub of the service that the load generator is tested and measured with: ``python -m loadtest._stub --port 8000``.

It gives TopFive's answers, always the same ones and at once, unless its options ask for delays or errors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from dataclasses import dataclass
from typing import Any

_PROBLEMS = {
    400: "/problems/bad-body",
    415: "/problems/unsupported-format",
    422: "/problems/undecodable",
    429: "/problems/overloaded",
    500: "/problems/internal",
}
_REASONS = {200: "OK"}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the stub answers ``/classify``."""

    delay_s: float = 0.0
    stall_at_s: float | None = None
    """Seconds from the first request until the stub stops answering for a while."""
    stall_s: float = 1.0
    status: int = 200
    every: int = 1
    """One in so many requests is answered with the status, the others with 200."""
    labels: str = "imagenet1k"
    state: str = "ready"


def _response(status: int, document: Any, headers: str = "") -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'No')}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _problem(status: int, problem: str) -> dict[str, Any]:
    return {"type": problem, "title": "An answer of the stub", "status": status, "detail": "as its options say"}


def _answer(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "checkpoint": {"name": f"{model}@imagenet1k", "labels": "imagenet1k", "trained": False, "top1": 69.8},
        "top5": [{"label": word, "index": n, "probability": 0.2} for n, word in enumerate(["a", "b", "c", "d", "e"])],
        "timings_ms": {"decode": 2.0, "queue": 0.5, "forward": 24.0, "total": 27.0},
        "batch_size": 3,
    }


class Stub(asyncio.Protocol):
    """One connection to the stub."""

    began: float | None = None
    connections = 0
    requests = 0

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._model = "lenet5" if behaviour.labels == "mnist" else "googlenet"
        self._single = _response(200, _answer(self._model))
        self._bulk = _response(200, {"results": [{"status": 200, **_answer(self._model)}] * 8})
        self._buffer = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        Stub.connections += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._missing > len(self._buffer):
            return
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _length(head)
            self._missing = end + 4 + length
            if len(self._buffer) < self._missing:
                return
            body = self._buffer[end + 4 : self._missing]
            self._buffer = self._buffer[self._missing :]
            self._missing = 0
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self._transport.write(self._get(head))
            return
        wait_s = self._wait_s()
        answer = self._classify(head, body)
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._transport.write, answer)
        else:
            self._transport.write(answer)

    def _wait_s(self) -> float:
        """The delay plus what is left of the stall."""
        now = time.monotonic()
        if Stub.began is None:
            Stub.began = now
        behaviour = self._behaviour
        since = now - Stub.began - (behaviour.stall_at_s or 0.0)
        stalled = behaviour.stall_at_s is not None and 0 <= since < behaviour.stall_s
        return behaviour.delay_s + (behaviour.stall_s - since if stalled else 0.0)

    def _get(self, head: bytes) -> bytes:
        if head.startswith(b"GET /connections "):
            return _response(200, Stub.connections)
        if not head.startswith((b"GET /models ", b"GET /readyz ")):
            return _response(404, _problem(404, "/problems/not-found"))
        row = {"labels": self._behaviour.labels, "aliases": [], "state": self._behaviour.state}
        name = f"{self._model}@{self._behaviour.labels}"
        return _response(200, {"models": [{"name": name, "variant": self._model, "footprint_mb": 100.0, **row}]})

    def _classify(self, head: bytes, body: bytes) -> bytes:
        Stub.requests += 1
        if self._behaviour.status != 200 and Stub.requests % self._behaviour.every == 0:
            problem = _PROBLEMS.get(self._behaviour.status, "/problems/not-ready")
            return _response(self._behaviour.status, _problem(self._behaviour.status, problem), "Retry-After: 1\r\n")
        if b"multipart/form-data" in head:
            return self._bulk
        if junk := _junk(head, body):
            return _response(junk[0], _problem(*junk))
        return self._single


def _length(head: bytes) -> int:
    begin = head.lower().find(b"content-length:")
    return 0 if begin < 0 else int(head[begin + 15 :].split(b"\r\n", 1)[0])


def _junk(head: bytes, body: bytes) -> tuple[int, str] | None:
    """The problem of a body that is not a picture; the last bytes of a JPEG or PNG tell whether it is complete."""
    if b"application/json" in head:
        return 400, "/problems/bad-body"
    if not body:
        return 400, "/problems/no-picture"
    if body.startswith(b"%PDF"):
        return 415, "/problems/unsupported-format"
    return None if body.endswith((b"\xff\xd9", b"IEND\xaeB`\x82")) else (422, "/problems/undecodable")


async def _serve(port: int, behaviour: Behaviour) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(lambda: Stub(behaviour), "127.0.0.1", port)
    await stopped.wait()
    server.close()


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay-s", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--stall-at-s", type=float, help="seconds from the first request until nothing is answered")
    parser.add_argument("--stall-s", type=float, default=1.0, help="seconds for which nothing is answered")
    parser.add_argument("--status", type=int, default=200, help="status of the answers")
    parser.add_argument("--every", type=int, default=1, help="one in so many requests gets the status, the others 200")
    parser.add_argument("--labels", default="imagenet1k", help="label set of the stub's one model")
    parser.add_argument("--state", default="ready", help="state of its one model: ready, loadable or 'weights missing'")
    options = vars(parser.parse_args())
    asyncio.run(_serve(options.pop("port"), Behaviour(**options)))


if __name__ == "__main__":
    main()
