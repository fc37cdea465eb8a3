"""Reading bodies: how large they may be, and how slow, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from service.domain.errors import BodyTooLargeError, BodyTooSlowError, OverloadedError
from service.http import uploads
from service.http.body_memory import BodyMemory, Room
from service.http.uploads import Upload
from tests.clock import Clock

LIMIT = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(uploads, "_CHECK_EVERY_S", 0.001)
    return clock


class Uploads(uploads.Uploads):
    """With a memory of its own, that ``memory`` is the rooms of."""

    def __init__(self, limit: int = 100 * LIMIT, clock: Clock | None = None) -> None:
        self.memory = BodyMemory(limit) if clock is None else BodyMemory(limit, clock)
        super().__init__(self.memory)

    async def read_one(self, receive: Any, announced: int | None = None, copies: int = 1) -> Upload:
        """Reads a body, and frees its room where it fails, as the endpoint does."""
        room = Room(self.memory)
        try:
            return await self.read(receive, room, LIMIT, announced, copies)
        except BaseException:
            room.free()
            raise


class Client:
    """A client that sends these chunks, and then ends the body or falls silent."""

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self._chunks = list(chunks)
        self._ends = ends

    async def receive(self) -> dict[str, Any]:
        if not self._chunks and not self._ends:
            await asyncio.Event().wait()
        chunk = self._chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks) or not self._ends}


async def checked() -> None:
    """Waits until the timer has checked at least once."""
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("sent", [0, 1, 5_000, 900_000])
async def test_a_client_that_stops_sending_has_20_seconds(clock: Clock, sent: int) -> None:
    """However much it has sent."""
    client = Client(*([sent * b"x"] if sent else []), ends=False)
    reading = asyncio.create_task(Uploads().read_one(client.receive))
    await checked()
    clock.now += 19.9
    await checked()
    assert not reading.done()
    clock.now += 0.2
    with pytest.raises(BodyTooSlowError, match=r"20 s, and one more for each 500 bytes"):
        await asyncio.wait_for(reading, 10)


@pytest.mark.parametrize(("rate", "kept"), [(510, True), (490, False)])
async def test_a_slow_body_is_read_at_the_least_rate_and_not_below(clock: Clock, rate: int, kept: bool) -> None:
    """For so long that the first 20 seconds do not matter."""
    left = 1_500

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        clock.now += 1
        await asyncio.sleep(0.002 if left % 100 == 0 else 0)
        return {"type": "http.request", "body": rate * b"x", "more_body": left > 0}

    reading = Uploads().read_one(receive)
    if kept:
        upload = await reading
        assert (upload.size, upload.ended) == (1_500 * rate, 1_000 + 1_500)
    else:
        with pytest.raises(BodyTooSlowError):
            await reading


async def test_one_slow_client_does_not_affect_others(clock: Clock) -> None:
    readers = Uploads()
    slow = asyncio.create_task(readers.read_one(Client(ends=False).receive))
    await checked()
    clock.now += 15
    other = asyncio.create_task(readers.read_one(Client(b"x", ends=False).receive))
    await checked()
    clock.now += 10
    with pytest.raises(BodyTooSlowError):
        await asyncio.wait_for(slow, 10)
    assert not other.done()
    other.cancel()
    # A cancellation by the server stays a cancellation.
    with pytest.raises(asyncio.CancelledError):
        await other


async def test_the_timer_runs_only_while_something_is_read(clock: Clock) -> None:
    readers = Uploads()
    assert (await readers.read_one(Client(b"x").receive)).content() == b"x"
    await checked()
    assert readers._timer is None
    assert not readers._due


async def test_both_a_slow_body_and_a_cancellation_end_as_a_cancellation(clock: Clock) -> None:
    readers = Uploads()
    reading = asyncio.create_task(readers.read_one(Client(ends=False).receive))
    await checked()
    clock.now += 30
    readers._check()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def read(*chunks: bytes) -> Upload:
    return await Uploads().read_one(Client(*chunks).receive)


async def test_bytes_stay_in_order_and_small_chunks_are_joined() -> None:
    chunks = [bytes([number % 251]) * (5_000 if number % 1_000 == 500 else 3) for number in range(50_000)]
    upload = await read(*chunks)
    assert upload.content() == b"".join(chunks)
    assert (upload.size, len(upload.chunks) < 200) == (sum(map(len, chunks)), True)
    assert (await read(b"")).content() == b""
    assert (await read(b"", b"")).content() == b""


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_refused() -> None:
    half = LIMIT // 2 * b"x"
    for chunks in ((half, half), (half + half,), (half, *(1_000 * [500 * b"x"]))):
        upload = await read(*chunks)
        assert (upload.size, upload.content()) == (LIMIT, half + half)
    for chunks in ((half, half, b"x"), (half + half + b"x",), (half, *(1_001 * [500 * b"x"]))):
        with pytest.raises(BodyTooLargeError):
            await read(*chunks)


async def test_a_body_that_is_too_large_is_refused_where_it_becomes_so() -> None:
    """The server reads on, so that the client sees the answer (``protocol.py``)."""
    client = Client(LIMIT * b"x", b"y", b"z")
    with pytest.raises(BodyTooLargeError, match="more than 1 MB"):
        await Uploads().read_one(client.receive)
    assert client._chunks == [b"z"]


class Asked(Client):
    """A client that sends its body only when it is asked to."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(*chunks)
        self.asked = False

    async def receive(self) -> dict[str, Any]:
        self.asked = True
        return await super().receive()


async def test_a_body_is_refused_by_its_length_before_it_is_asked_for() -> None:
    readers = Uploads(10 * LIMIT)
    client = Asked(b"x")
    with pytest.raises(BodyTooLargeError):
        await readers.read_one(client.receive, LIMIT + 1)
    Room(readers.memory).resize(7 * LIMIT)
    for copies, taken in ((2, LIMIT // 4), (3, LIMIT // 6)):
        with pytest.raises(OverloadedError, match="10 MB"):
            await readers.read_one(client.receive, taken + 1, copies)
        assert not client.asked
        assert (await readers.read_one(Asked(b"x").receive, taken, copies)).size == 1
    assert (await readers.read_one(client.receive, 60_000)).size == 1


async def test_bodies_take_memory_as_they_arrive_and_are_refused_when_it_is_full() -> None:
    readers = Uploads(4 * LIMIT)
    held = [Room(readers.memory) for _ in range(2)]
    for room in held:
        room.resize(LIMIT)
    assert (await readers.read_one(Client(*(10 * [LIMIT // 10 * b"x"])).receive)).size == LIMIT
    assert readers.memory.held == 3 * LIMIT
    client = Client(*(10 * [LIMIT // 10 * b"x"]))
    with pytest.raises(OverloadedError):
        await readers.read_one(client.receive)
    assert (len(client._chunks), readers.memory.held, readers.memory.arriving) == (9, 3 * LIMIT, {})
    # Small ones have room that large ones may not take.
    assert (await readers.read_one(Client(60_000 * b"x").receive)).size == 60_000
    for room in held:
        room.free()
    assert (await readers.read_one(Client(*(10 * [LIMIT // 10 * b"x"])).receive)).size == LIMIT


async def test_a_body_that_has_stopped_gives_way_to_others(clock: Clock) -> None:
    readers = Uploads(4 * LIMIT, clock)
    stopped = asyncio.create_task(readers.read_one(Client(LIMIT * b"x", ends=False).receive))
    moving = Client(LIMIT // 2 * b"x", ends=False)
    moves = asyncio.create_task(readers.read_one(moving.receive))
    await checked()
    # Both have just begun: neither gives way.
    with pytest.raises(OverloadedError):
        await readers.read_one(Asked(b"x").receive, 900_000, 2)
    clock.now += 2.1
    Room(readers.memory).resize(0)
    with pytest.raises(OverloadedError):
        # Not even both of them would be enough.
        readers.memory.check(4 * LIMIT)
    assert len(readers.memory.arriving) == 2
    readers.memory.check(LIMIT + LIMIT // 2 + 1)
    with pytest.raises(BodyTooSlowError, match="other bodies need the memory"):
        await asyncio.wait_for(stopped, 10)
    assert (moves.done(), readers.memory.held) == (False, LIMIT // 2)
    moves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moves


async def test_a_disconnect_during_the_body_is_raised() -> None:
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    with pytest.raises(ClientDisconnect):
        await Uploads().read_one(receive)


async def test_a_single_chunk_is_not_copied_and_its_end_is_timed(clock: Clock) -> None:
    content = 100_000 * b"x"
    clock.now = 77.0
    upload = await read(content)
    assert upload.content() is content
    assert upload.ended == 77.0


async def test_a_disconnect_before_the_body_is_raised() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    uploads_here = Uploads()
    with pytest.raises(ClientDisconnect):
        await uploads_here.read_one(receive)
    assert not uploads_here._due
