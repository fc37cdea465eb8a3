"""The load: processes of asyncio connections that are kept alive, over bare sockets. Nothing but Python is needed.

A closed loop posts again as soon as it is answered; an open loop posts when a request is due, by Poisson arrivals, and
counts latency from then, also where all connections were busy. Only what was sent, or due, after the warm-up counts.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

#: The status of a request whose connection ended instead, and of one that was not answered.
CLOSED, UNANSWERED = 0, -1
#: How long processes have to start before they begin together.
_START_S = 1.0
#: How long answers are waited for after the end.
_PATIENCE_S = 5.0
_BATCH = b'"batch_size":'


@dataclass(frozen=True, slots=True)
class Load:
    """What one process sends."""

    port: int
    path: str
    body: bytes
    connections: int
    warm_s: float
    seconds: float
    rate: float | None = None
    """Requests a second that are due; None for a closed loop."""
    begin: float = 0.0
    """When all processes begin, on ``time.monotonic()``."""
    seed: int = 0

    @property
    def request(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: image/jpeg\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass(slots=True)
class Seen:
    """What one or all processes saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    """Of answers with status 200."""
    answered: int = 0
    """Answers with status 200 that came within the window, whenever they were sent: they make the rate."""
    batches: int = 0
    """The sum of the batch sizes that those answers tell."""
    busy: float = 0.0
    """The share of one core that the busiest process used."""

    def add(self, other: Seen) -> None:
        self.statuses += other.statuses
        self.latencies_s += other.latencies_s
        self.answered += other.answered
        self.batches += other.batches
        self.busy = max(self.busy, other.busy)

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def quantile_ms(self, share: float) -> float | None:
        """The latency that so many answers did not exceed."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def load(given: Load, processes: int) -> Seen:
    """Puts the service under load with several processes, which share connections and rate.

    Raises:
        TimeoutError: a process did not come to its end.
    """
    context = multiprocessing.get_context("spawn")
    begin = time.monotonic() + _START_S
    pipes, children = [], []
    for number, connections in enumerate(_shares(given.connections, processes)):
        rate = None if given.rate is None else given.rate / processes
        part = replace(given, connections=connections, rate=rate, begin=begin, seed=given.seed + number)
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(theirs, part))
        child.start()
        # The child has its own: once that is closed, reading ends.
        theirs.close()
        pipes.append(ours)
        children.append(child)
    seen = Seen()
    try:
        for pipe in pipes:
            if not pipe.poll(_START_S + given.warm_s + given.seconds + _PATIENCE_S + 30):
                raise TimeoutError("a process of the load generator did not end")
            seen.add(pipe.recv())
    finally:
        for pipe, child in zip(pipes, children, strict=True):
            pipe.close()
            child.join(1)
            child.kill()
            child.join()
            child.close()
    return seen


def _child(pipe: Connection, given: Load) -> None:
    pipe.send(asyncio.run(_Loop(given).run()))


class _Loop:
    """One process's load."""

    def __init__(self, given: Load) -> None:
        self._given = given
        self._request = given.request
        self._callers: list[_Caller] = []
        self._idle: list[_Caller] = []
        self._due: deque[float] = deque()
        """Requests that found no idle connection, by when they were due."""
        self._under_way = 0
        self._quiet = asyncio.Event()
        self.seen = Seen()

    async def run(self) -> Seen:
        given, loop = self._given, asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, given.begin - time.monotonic()))
        self.counts_from = time.monotonic() + given.warm_s
        self.ends = self.counts_from + given.seconds
        for _ in range(given.connections):
            _, caller = await loop.create_connection(lambda: _Caller(self), "127.0.0.1", given.port)
            self._callers.append(caller)
            self.idle(caller)
        cpu_before, began = time.process_time(), time.monotonic()
        if given.rate is not None:
            await self._arrive(given.rate)
        await asyncio.sleep(max(0.0, self.ends - time.monotonic()))
        self.seen.busy = (time.process_time() - cpu_before) / (time.monotonic() - began)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while self._under_way or self._due:
                    self._quiet.clear()
                    await self._quiet.wait()
        self.seen.statuses[UNANSWERED] += self._under_way + len(self._due)
        for caller in self._callers:
            caller.close()
        # The loop closes them in its next turn.
        await asyncio.sleep(0)
        return self.seen

    async def _arrive(self, rate: float) -> None:
        source = random.Random(self._given.seed)  # noqa: S311 - not for secrets
        due = time.monotonic()
        while True:
            due += source.expovariate(rate)
            if due >= self.ends:
                return
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self._idle:
                self._post(self._idle.pop(), due)
            else:
                self._due.append(due)

    def _post(self, caller: _Caller, due: float) -> None:
        self._under_way += 1
        caller.post(self._request, due)

    def idle(self, caller: _Caller) -> None:
        """Gives a connection its next request, or keeps it."""
        now = time.monotonic()
        if self._due:
            self._post(caller, self._due.popleft())
        elif self._given.rate is None and now < self.ends:
            self._post(caller, now)
        else:
            self._idle.append(caller)

    def over(self, caller: _Caller, due: float, status: int, batch: int) -> None:
        """Counts an answer."""
        now = time.monotonic()
        self._under_way -= 1
        if status == 200 and self.counts_from <= now < self.ends:
            self.seen.answered += 1
            self.seen.batches += batch
        if self.counts_from <= due < self.ends:
            self.seen.statuses[status] += 1
            if status == 200:
                self.seen.latencies_s.append(now - due)
        if status != CLOSED:
            self.idle(caller)
        if not self._under_way:
            self._quiet.set()


class _Caller(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._due: float | None = None
        self._answer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def post(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def close(self) -> None:
        """Ends the connection; what it waits for does not count any more."""
        self._due = None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        status = status_of(self._answer)
        if status is not None and self._due is not None:
            due, batch = self._due, _batch_of(self._answer)
            self._due = None
            self._answer.clear()
            self._loop.over(self, due, status, batch)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            due, self._due = self._due, None
            self._loop.over(self, due, CLOSED, 0)


def status_of(answer: bytes | bytearray) -> int | None:
    """The status of an answer, or None while it is incomplete.

    Raises:
        ValueError: the answer does not say its length in advance.
    """
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(answer[:end]).lower()
    _, said, after = head.partition(b"\r\ncontent-length:")
    if not said:
        raise ValueError("the answer has no Content-Length")
    complete = len(answer) >= end + 4 + int(after.partition(b"\r\n")[0])
    return int(head[9:12]) if complete else None


def _batch_of(answer: bytes | bytearray) -> int:
    """The batch size that an answer tells; 0 if it tells none."""
    at = answer.find(_BATCH)
    digits = bytes(answer[at + len(_BATCH) : at + len(_BATCH) + 8]).split(b",")[0].split(b"}")[0] if at >= 0 else b""
    return int(digits) if digits.strip().isdigit() else 0


def _shares(total: int, parts: int) -> Sequence[int]:
    """Splits a number as evenly as possible."""
    return [total // parts + (number < total % parts) for number in range(parts)]
