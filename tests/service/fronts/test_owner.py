"""An owner as a front sees it: questions find their answers, and an end of the connection answers all of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from models.images.preprocess import PRESETS
from service.fronts.owner import Kind, Lost, Owner, Told
from service.link import messages
from service.link.connection import Connection
from service.link.crops import Slots
from service.link.messages import (
    Answered,
    Ask,
    Call,
    Cancel,
    Cropped,
    Decode,
    Described,
    Failed,
    FromFront,
    Reply,
    Times,
    Undecoded,
    from_front,
)
from tests.waiting import soon

MNIST = PRESETS["mnist"]
TIMES = Times(0.1, 0.2, 0.3, 1)
CALL = Call(0, "GET", "/models", b"", [], None)
OTHERS = Described(4, "vgg16", "vgg16@imagenet1k", "imagenet1k", "a paper", True, 71.6)
LENET = Described(4, "lenet5", "lenet5@mnist", "mnist", "a paper", True, 99.4)


class Picture:
    """Remembers what the owner wants."""

    def __init__(self) -> None:
        self.wants: list[tuple[Owner, int, int]] = []

    def wanted(self, owner: Owner, number: int, kind: int) -> None:
        self.wants.append((owner, number, kind))


class Pair:
    """A front's owner, and the other side of its connection."""

    def __init__(self) -> None:
        self.memory = Slots(4096, 2)
        self.lost: list[Owner] = []
        self.owner = Owner(self.memory, self.lost.append)
        self.told: list[FromFront] = []
        self.there: Connection[FromFront] = Connection(from_front, self.told.append, lambda: None)

    def ask(self, picture: Picture | None = None, **options: Any) -> asyncio.Task[Told | Failed | Lost]:
        asked = self.owner.ask(picture or Picture(), b"{}", 1.5, 300, None, **options)
        return asyncio.create_task(asked)

    async def tells(self, count: int) -> list[FromFront]:
        await soon(lambda: len(self.told) >= count)
        told, self.told[:] = self.told[:], []
        return told

    async def says(self, *said: Any) -> None:
        """The owner says that, and the front has read it."""
        for message in (*said, Reply(2**63, 200, [], b"")):
            self.there.send(message)
        # What was sent before an answer is read before it.
        call = asyncio.create_task(self.owner.call(CALL))
        (sent,) = await self.tells(1)
        assert isinstance(sent, Call)
        self.there.send(Reply(sent.id, 200, [], b""))
        await call


@asynccontextmanager
async def connected() -> AsyncIterator[Pair]:
    made, (here, there) = Pair(), socket.socketpair()
    await made.owner.begin(here)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: made.there, there)
    yield made
    made.there.close()
    made.owner.close()
    await soon(lambda: not made.owner.open)
    made.memory.close()


async def test_each_question_gets_its_own_answer_in_any_order() -> None:
    async with connected() as pair:
        asking = [pair.ask(), pair.ask(), pair.ask(crop=(1, 0, 0.5))]
        first, second, third = await pair.tells(3)
        assert (first, second) == (Ask(1, b"{}", 1.5, 300), Ask(2, b"{}", 1.5, 300))
        assert third == Ask(3, b"{}", 1.5, 300, None, Cropped(3, 1, 0, 0.5))
        assert pair.owner.waiting == 3
        pair.there.send(messages.Kind(1, MNIST.to_json(), 99))
        pair.there.send(LENET)
        failed = Failed(1, "overloaded", "later", {}, None)
        for answer in (Answered(3, 4, [1], [0.5], TIMES, kind=1), failed, Answered(2, 4, [2], [0.5], TIMES)):
            pair.there.send(answer)
        told = await asyncio.gather(*asking)
        assert told[0] == failed
        assert told[1] == Told(Answered(2, 4, [2], [0.5], TIMES), LENET, None)
        assert told[2] == Told(Answered(3, 4, [1], [0.5], TIMES, kind=1), LENET, Kind(MNIST, 99))
        assert pair.owner.waiting == 0


async def test_a_number_means_what_it_meant_when_the_answer_came() -> None:
    async with connected() as pair:
        one, other = pair.ask(), pair.ask()
        await pair.tells(2)
        # All in one read: both askers wake up after the last of these.
        for message in (OTHERS, Answered(1, 4, [1], [0.5], TIMES), LENET, Answered(2, 4, [1], [0.5], TIMES)):
            pair.there.send(message)
        told = await asyncio.gather(one, other)
        assert [answer.served.name for answer in told if isinstance(answer, Told)] == [
            "vgg16@imagenet1k",
            "lenet5@mnist",
        ]


async def test_the_owner_says_how_it_wants_a_picture() -> None:
    async with connected() as pair:
        picture = Picture()
        asking = pair.ask(picture)
        await pair.tells(1)
        await pair.says(messages.Kind(0, MNIST.to_json(), 99), Decode(1, 0), Decode(77, 0))
        assert picture.wants == [(pair.owner, 1, 0)]
        assert (pair.owner.kind(0), pair.owner.number_of(Kind(MNIST, 99))) == (Kind(MNIST, 99), 0)
        assert pair.owner.number_of(Kind(MNIST, 98)) is None
        pair.owner.cropped(1, 0, 1, 0.25)
        pair.owner.undecoded(1, 0, Failed(1, "undecodable", "text", {}))
        assert await pair.tells(2) == [Cropped(1, 0, 1, 0.25), Undecoded(1, 0, Failed(1, "undecodable", "text", {}))]
        asking.cancel()


async def test_whoever_is_cancelled_is_no_longer_known() -> None:
    async with connected() as pair:
        picture = Picture()
        asking, calling = pair.ask(picture), asyncio.create_task(pair.owner.call(CALL))
        await pair.tells(2)
        for task in (asking, calling):
            task.cancel()
        assert await pair.tells(2) == [Cancel(1), Cancel(2)]
        assert pair.owner.waiting == 0
        await pair.says(LENET, Decode(1, 0), Answered(1, 4, [1], [0.5], TIMES), Reply(2, 200, [], b""))
        assert picture.wants == []
        # An answer that has come already leaves nothing to cancel.
        asking = pair.ask()
        (ask,) = await pair.tells(1)
        assert isinstance(ask, Ask)
        pair.there.send(Failed(ask.id, "overloaded", "", {}))
        await asking
        await asyncio.sleep(0.01)
        assert pair.told == []


async def test_a_call_is_answered_under_an_id_of_its_own() -> None:
    async with connected() as pair:
        calling = asyncio.create_task(pair.owner.call(CALL))
        (call,) = await pair.tells(1)
        assert isinstance(call, Call)
        assert (call.id, call.path) == (1, "/models")
        pair.there.send(Reply(1, 418, [(b"a", b"b")], b"tea"))
        assert await calling == Reply(1, 418, [(b"a", b"b")], b"tea")


async def test_the_end_of_the_connection_answers_everybody_once() -> None:
    async with connected() as pair:
        asking = [pair.ask() for _ in range(3)]
        calling = asyncio.create_task(pair.owner.call(CALL))
        await pair.tells(4)
        asking[0].cancel()
        pair.there.close()
        assert [type(lost) for lost in await asyncio.gather(*asking[1:], calling)] == [Lost] * 3
        assert (pair.lost, pair.owner.open, pair.owner.waiting) == ([pair.owner], False, 0)
        # From now on nobody need try.
        assert isinstance(await pair.ask(), Lost)
        assert isinstance(await pair.owner.call(CALL), Lost)
        pair.owner.cropped(1, 0, 0, 0.0)


async def test_what_comes_after_the_front_has_ended_the_connection_is_nobodys() -> None:
    async with connected() as pair:
        asking = pair.ask()
        await pair.tells(1)
        pair.owner.close()
        assert isinstance(await asking, Lost)


WRONG = [
    ("an unknown checkpoint", Answered(1, 9, [1], [0.5], TIMES)),
    ("an unknown kind", Answered(1, 4, [1], [0.5], TIMES, kind=9)),
    ("an unknown problem", Failed(1, "nonsense", "", {})),
    ("preprocessing without fields", messages.Kind(0, {}, 99)),
    ("preprocessing with others", messages.Kind(0, {**MNIST.to_json(), "sharpen": 1}, 99)),
    ("preprocessing that cannot be", messages.Kind(0, {**MNIST.to_json(), "enlarge": 1}, 99)),
    ("a front's message", Cancel(1)),
]


@pytest.mark.parametrize("message", [row[1] for row in WRONG], ids=[row[0] for row in WRONG])
async def test_an_owner_that_breaks_the_protocol_is_lost(message: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as pair:
        asking = pair.ask()
        await pair.tells(1)
        pair.there.send(LENET)
        pair.there.send(message)
        assert isinstance(await asyncio.wait_for(asking, 10), Lost)
        assert pair.lost == [pair.owner]
    assert "is closed" in caplog.text
