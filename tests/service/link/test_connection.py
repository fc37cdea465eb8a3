"""Frames over a socket: they arrive whole however they are split, and nonsense ends the connection and nothing else."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.link import connection as module
from service.link.connection import MOST_BYTES, Connection
from service.link.messages import Cancel, Cropped, FromFront, Message, encode, from_front
from tests.waiting import soon


def framed(*messages: Message) -> bytes:
    """Messages as they are on the wire, made here by hand: a length of four bytes, little end first."""
    frames = [encode(message) for message in messages]
    return b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)


class Transport(asyncio.Transport):
    """Remembers what is written, and whether the connection was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        self.ended = True


class End:
    """One end of a connection whose transport is pretended."""

    def __init__(self, received: Callable[[FromFront], None] | None = None) -> None:
        self.received: list[FromFront] = []
        self.lost = 0
        self.connection: Connection[FromFront] = Connection(from_front, received or self.received.append, self._lost)
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def _lost(self) -> None:
        self.lost += 1


MESSAGES = [Cancel(1), Cropped(2**62, 3, 4, 0.25), Cancel(70_000)]


async def test_frames_that_are_split_anywhere_arrive_whole() -> None:
    data = framed(*MESSAGES)
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            end = End()
            for part in (data[:first], data[first:second], data[second:]):
                end.connection.data_received(part)
            assert end.received == MESSAGES
            assert not end.transport.ended


async def test_a_frame_is_handed_on_with_its_last_byte() -> None:
    end, data = End(), framed(*MESSAGES)
    counts = []
    for position in range(len(data)):
        end.connection.data_received(data[position : position + 1])
        counts.append(len(end.received))
    lengths = [len(framed(message)) for message in MESSAGES]
    expected = [sum(position + 1 >= sum(lengths[: n + 1]) for n in range(3)) for position in range(len(data))]
    assert counts == expected


@given(st.lists(st.integers(0, 2**64 - 1).map(Cancel), max_size=20), st.data())
def test_frames_arrive_in_any_parts(messages: list[Cancel], data: st.DataObject) -> None:
    async def run() -> None:
        end, rest = End(), framed(*messages)
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            end.connection.data_received(rest[:size])
            rest = rest[size:]
        assert end.received == messages

    asyncio.run(run())


NONSENSE = [
    ("a frame of no bytes", b"\0\0\0\0"),
    ("a frame of nonsense", b"\3\0\0\0\xff\xff\xff"),
    ("text instead of a frame", b"GET / HTTP/1.1\r\n\r\n"),
    ("a frame above the limit", (MOST_BYTES + 1).to_bytes(4, "little")),
    ("an array of another message", framed(Cancel(1))[:4] + b"\x92\x7f"),
    ("bytes after the message", b"\4\0\0\0" + encode(Cancel(1)) + b"\0\0"),
]


@pytest.mark.parametrize("data", [data for _, data in NONSENSE], ids=[what for what, _ in NONSENSE])
async def test_nonsense_ends_the_connection_and_what_follows_it_is_not_read(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    end = End()
    end.connection.data_received(framed(Cancel(1)) + data + framed(Cancel(2)))
    assert (end.received, end.transport.ended, end.connection.open) == ([Cancel(1)], True, False)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_frame_at_the_limit_is_waited_for() -> None:
    end = End()
    end.connection.data_received(MOST_BYTES.to_bytes(4, "little") + b"x" * 100)
    assert not end.transport.ended


@given(st.binary(max_size=300), st.integers(1, 50))
def test_random_bytes_end_the_connection_or_wait_for_more(data: bytes, size: int) -> None:
    async def run() -> None:
        end = End()
        for start in range(0, len(data), size):
            if end.transport.ended:
                break
            end.connection.data_received(data[start : start + size])

    asyncio.run(run())


async def test_an_error_in_what_is_done_with_a_message_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    handled: list[FromFront] = []

    def fail(message: FromFront) -> None:
        handled.append(message)
        raise KeyError("a defect")

    end = End(fail)
    end.connection.data_received(framed(Cancel(1), Cancel(2)))
    assert (handled, end.transport.ended) == ([Cancel(1)], True)
    assert "KeyError" in caplog.text


async def test_nothing_more_is_read_once_the_connection_was_ended() -> None:
    end = End(lambda message: (seen.append(message), end.connection.close())[1])
    seen: list[FromFront] = []
    end.connection.data_received(framed(Cancel(1), Cancel(2)))
    assert seen == [Cancel(1)]


async def test_messages_of_one_turn_of_the_loop_are_sent_together_and_in_order() -> None:
    end = End()
    for message in MESSAGES:
        end.connection.send(message)
    assert end.transport.written == []
    await asyncio.sleep(0)
    end.connection.send(Cancel(4))
    await asyncio.sleep(0)
    assert end.transport.written == [framed(*MESSAGES), framed(Cancel(4))]


async def test_patient_messages_wait_for_others_and_no_other_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOMENT_S", 0.02)
    end = End()
    end.connection.send(Cancel(1), patient=True)
    await asyncio.sleep(0)
    end.connection.send(Cancel(2), patient=True)
    await asyncio.sleep(0)
    assert end.transport.written == []
    end.connection.send(Cancel(3))
    end.connection.send(Cancel(4), patient=True)
    await asyncio.sleep(0)
    assert end.transport.written == [framed(*(Cancel(number) for number in (1, 2, 3, 4)))]
    # The timer of the first is over with that.
    end.connection.send(Cancel(5), patient=True)
    await soon(lambda: len(end.transport.written) == 2)
    await asyncio.sleep(0.03)
    assert end.transport.written[1:] == [framed(Cancel(5))]


async def test_what_is_sent_to_a_connection_that_has_ended_is_lost() -> None:
    end = End()
    end.connection.send(Cancel(1))
    end.connection.connection_lost(None)
    end.connection.send(Cancel(2))
    await asyncio.sleep(0)
    end.connection.close()
    assert (end.transport.written, end.connection.open, end.lost) == ([], False, 1)


async def test_before_it_is_made_a_connection_is_not_open() -> None:
    connection: Connection[FromFront] = Connection(from_front, lambda _: None, lambda: None)
    assert not connection.open
    connection.close()


async def test_who_owns_a_connection_goes_with_it_and_not_with_the_next_search_for_cycles() -> None:
    class Side:
        def __init__(self) -> None:
            self.connection: Connection[FromFront] = Connection(from_front, self.received, self.lost)

        def received(self, _message: FromFront) -> None: ...
        def lost(self) -> None: ...

    gc.collect()
    gc.disable()
    try:
        side = Side()
        side.connection.connection_made(Transport())
        gone = weakref.ref(side)
        connection = side.connection
        connection.connection_lost(None)
        del side
        assert gone() is None
    finally:
        gc.enable()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[End, socket.socket]]:
    """An end over a real socket, and the other side's socket."""
    ours, theirs = socket.socketpair()
    end = End()
    with theirs:
        theirs.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: end.connection, ours)
        yield end, theirs
        end.connection.close()
        await asyncio.sleep(0)


async def test_over_a_socket() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as (end, theirs):
        await loop.sock_sendall(theirs, framed(*MESSAGES))
        await soon(lambda: len(end.received) == 3)
        end.connection.send(Cancel(9))
        assert await loop.sock_recv(theirs, 1000) == framed(Cancel(9))
        theirs.close()
        await soon(lambda: end.lost == 1)
        assert not end.connection.open
    assert (end.lost, end.received) == (1, MESSAGES)
