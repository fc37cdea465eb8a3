"""One attack, as a process of its own with the lowest priority: ``python bench/attackers.py NAME PORT SECONDS``.

It says that it is ready, and begins when a line comes over standard input. Prints what became of its requests, as JSON:
counts by status (``lost`` if the connection ended without an answer), and the time to the answer from the last byte
that was sent, of those that were answered. All connections come from one address of this machine, 127.0.0.9, so that
the service tells the attacker from other clients.

``python bench/attackers.py sink PORT SECONDS`` is a server instead, which reads and answers at once: what an attack
costs the machine even if nobody does any work for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from statistics import median

import hostile

ADDRESS = "127.0.0.9"
#: How long an answer is waited for.
_WITHIN_S = 30.0
_CONNECTIONS = 8
_MANY = 1000
_RUDE_A_SECOND = 1000


class Attack:
    """What one attack sends and counts.

    Args:
        port: of the service.
        until: when it ends, on the monotonic clock.
    """

    def __init__(self, port: int, until: float) -> None:
        self._port = port
        self._until = until
        self.counts: Counter[str] = Counter()
        self.answered_ms: list[float] = []

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, local_addr=(ADDRESS, 0))

    async def once(self, request: bytes) -> None:
        """Sends a request over a connection of its own, and waits for the answer."""
        try:
            reader, writer = await self.connect()
        except OSError:
            self.counts["refused"] += 1
            await asyncio.sleep(0.05)
            return
        try:
            async with asyncio.timeout(_WITHIN_S):
                await self._ask(reader, writer, request)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            self.counts["lost"] += 1
        finally:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        """Sends while it listens: a service may answer, and close, before it has read everything."""
        sent_at = time.monotonic()

        async def send() -> None:
            nonlocal sent_at
            with suppress(OSError):
                writer.write(request)
                await writer.drain()
            sent_at = time.monotonic()

        sending = asyncio.create_task(send())
        try:
            status = await answered(reader)
            self.answered_ms.append(max(0.0, time.monotonic() - sent_at) * 1000)
            self.counts[status] += 1
        finally:
            sending.cancel()

    async def again_and_again(self, request: bytes, connections: int = _CONNECTIONS) -> None:
        """The same request in a closed loop."""

        async def one() -> None:
            while not self.over:
                await self.once(request)

        await asyncio.gather(*(one() for _ in range(connections)))

    async def slowly(self, head: bytes, drop: bytes) -> None:
        """Many connections that send next to nothing, and begin again when they are closed."""

        async def one(number: int) -> None:
            await asyncio.sleep(number / _MANY)
            while not self.over:
                try:
                    reader, writer = await self.connect()
                except OSError:
                    self.counts["refused"] += 1
                    await asyncio.sleep(1)
                    continue
                await self._drip(reader, writer, head, drop)

        await asyncio.gather(*(one(number) for number in range(_MANY)))

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, drop: bytes) -> None:
        answer = asyncio.create_task(answered(reader))
        try:
            writer.write(head)
            while not self.over and not answer.done():
                await asyncio.wait([answer], timeout=1)
                writer.write(drop)
                await writer.drain()
        except OSError:
            pass
        finally:
            if answer.done():
                self.counts["lost" if answer.exception() else answer.result()] += 1
            else:
                self.counts["held"] += 1
                answer.cancel()
            writer.close()

    async def endlessly(self, head: bytes, chunk: bytes) -> None:
        """Bodies in chunks that do not end."""

        async def one() -> None:
            while not self.over:
                try:
                    reader, writer = await self.connect()
                except OSError:
                    await asyncio.sleep(0.1)
                    continue
                answer = asyncio.create_task(answered(reader))
                try:
                    writer.write(head)
                    while not self.over and not answer.done():
                        writer.write(chunk)
                        drained = asyncio.create_task(writer.drain())
                        await asyncio.wait([drained, answer], return_when=asyncio.FIRST_COMPLETED)
                        drained.cancel()
                except OSError:
                    pass
                finally:
                    with suppress(Exception):
                        async with asyncio.timeout(1):
                            await asyncio.wait([answer])
                    done = answer.done() and not answer.exception()
                    self.counts[answer.result() if done else "lost"] += 1
                    answer.cancel()
                    writer.close()

        await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))

    async def at_rate(self, requests: list[bytes], per_second: float) -> None:
        """Requests in turn, whatever is answered, but at most 500 that wait for an answer at a time."""
        waiting: set[asyncio.Task[None]] = set()
        began, sent = time.monotonic(), 0
        while not self.over:
            due = int((time.monotonic() - began) * per_second)
            while sent < due:
                if len(waiting) < 500:
                    task = asyncio.create_task(self.once(requests[sent % len(requests)]))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
                else:
                    self.counts["not sent"] += 1
                sent += 1
            await asyncio.sleep(max(0.002, 0.5 / per_second))
        await asyncio.wait(waiting, timeout=2) if waiting else None


async def answered(reader: asyncio.StreamReader) -> str:
    """Reads an answer; returns its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            await reader.readexactly(int(value))
    return lines[0].split(b" ")[1].decode()


_SLOW_HEAD = b"POST /classify?model=lenet5 HTTP/1.1\r\nHost: localhost\r\n"
_CHUNKED = b"POST /models/lenet5/load HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = b"%x\r\n%s\r\n" % (1 << 16, bytes(1 << 16))


def _unloads() -> list[bytes]:
    """From another machine behind a proxy of this one, and from a web page of another site."""
    path = b"/models/%s/unload?wait=true"
    foreign = (b"X-Forwarded-For: 192.0.2.66", b"Origin: http://evil.example")
    return [hostile.post(path % name, b"", header) for name in (b"lenet5", b"googlenet") for header in foreign]


def _photo() -> bytes:
    return hostile.progressive_jpeg(500, 0)


Work = Callable[[Attack], Awaitable[None]]
#: The attacks that are more than one request again and again.
_OTHERS: dict[str, Callable[[], Work]] = {
    "slow-headers": lambda: lambda attack: attack.slowly(_SLOW_HEAD, b"X-A: b\r\n"),
    "slow-bodies": lambda: lambda attack: attack.slowly(_SLOW_HEAD + b"Content-Length: 100000\r\n\r\n", b"a"),
    "endless-load": lambda: lambda attack: attack.endlessly(_CHUNKED, _CHUNK),
    "unload": lambda: _at_rate(_unloads(), 5),
    "rude": lambda: _at_rate([hostile.post(b"/classify?latency_ms=150", _photo())], _RUDE_A_SECOND),
    "rude-named": lambda: _at_rate([hostile.post(b"/classify?model=googlenet", _photo())], _RUDE_A_SECOND),
    "bulks": lambda: _again(
        hostile.post(b"/classify?model=googlenet", hostile.bulk(_photo()), b"Content-Type: application/json"), 16
    ),
}
NAMES = (*hostile.REQUESTS, *_OTHERS)


def _again(request: bytes, connections: int = _CONNECTIONS) -> Work:
    return lambda attack: attack.again_and_again(request, connections)


def _at_rate(requests: list[bytes], per_second: float) -> Work:
    return lambda attack: attack.at_rate(requests, per_second)


def _prepared(name: str) -> Work:
    """An attack, with what it sends made."""
    made = hostile.REQUESTS.get(name)
    return _OTHERS[name]() if made is None else _again(made())


class _Sink(asyncio.Protocol):
    """Reads requests and answers each at its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._head = b""
        self._left = -1
        """Bytes of the body that are still to come; -1 in the head, and -2 where the end is a last chunk."""

    def data_received(self, data: bytes) -> None:
        if self._left == -1:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            lower = head.lower()
            at = lower.find(b"content-length:")
            self._left = -2 if b"transfer-encoding" in lower else 0
            if at >= 0:
                self._left = int(lower[at + 15 :].split(b"\r\n")[0])
            data = rest
        if self._left == -2:
            return
        self._left -= len(data)
        if self._left <= 0:
            self._left = -1
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def _swallow(port: int, seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port, backlog=2000)
    async with server:
        await asyncio.sleep(seconds)


async def _run(name: str, port: int, seconds: float) -> None:
    begin = _prepared(name)
    print("ready", flush=True)
    # The runner says when to begin.
    await asyncio.to_thread(sys.stdin.readline)
    attack = Attack(port, time.monotonic() + seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds + 3):
            await begin(attack)
    times = sorted(attack.answered_ms)
    answered_ms = {"p50": median(times), "most": times[-1]} if times else None
    print(json.dumps({"counts": attack.counts, "answered_ms": answered_ms}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=[*NAMES, "sink"])
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    if options.name == "sink":
        asyncio.run(_swallow(options.port, options.seconds))
    else:
        os.nice(19)
        asyncio.run(_run(options.name, options.port, options.seconds))


if __name__ == "__main__":
    main()
