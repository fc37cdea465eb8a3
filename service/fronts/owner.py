"""One device owner, as a front sees it: what it was asked, and what it has said of kinds and checkpoints."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from models.images.outline import Outline
from models.images.preprocess import Preprocess
from service.domain.errors import PROBLEMS
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
    FromOwner,
    Reply,
    Undecoded,
)

#: An owner with so many pictures of this front is not waiting for the next one.
_ENOUGH = 8


class Lost:
    """What is answered to whoever waits for an owner whose connection has ended."""


class Kind(NamedTuple):
    """How an owner wants pictures."""

    preprocess: Preprocess | None
    """None: as files, which it decodes itself."""
    max_pixels: int


_FILE = Kind(None, 0)


class Told(NamedTuple):
    """An owner's answer. Its numbers are looked up when it comes: a later message may give them another meaning."""

    answer: Answered
    served: Described
    kind: Kind | None
    """How the next picture for the same query will be wanted, most likely."""


class Asked(Protocol):
    """A picture that an owner was asked to classify."""

    def wanted(self, owner: Owner, number: int, kind: int) -> None:
        """The owner wants it decoded. ``owner.cropped`` or ``owner.undecoded`` must follow."""
        ...


class Owner:
    """A connection to a device owner. Not thread-safe: use it from one event loop.

    Args:
        memory: the front's memory for crops that this owner was given.
        lost: called once, when the connection has ended.
    """

    def __init__(self, memory: Slots, lost: Callable[[Owner], None]) -> None:
        self.memory = memory
        self._told_lost = lost
        self._connection: Connection[FromOwner] = Connection(messages.from_owner, self._received, self._lost)
        self._last = 0
        self._asked: dict[int, tuple[Asked, asyncio.Future[Told | Failed | Lost]]] = {}
        self._called: dict[int, asyncio.Future[Reply | Lost]] = {}
        self._kinds: dict[int, Kind] = {messages.FILE: _FILE}
        self._numbers: dict[Kind, int] = {_FILE: messages.FILE}
        self._described: dict[int, Described] = {}

    async def begin(self, connected: socket.socket) -> None:
        """Takes a socket over whose handshake is done."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self._connection, connected)

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return self._connection.open

    @property
    def waiting(self) -> int:
        """How many pictures of this front it has not answered."""
        return len(self._asked)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def kind(self, number: int) -> Kind:
        """How pictures of a kind are wanted."""
        return self._kinds[number]

    def number_of(self, kind: Kind) -> int | None:
        """The number of a kind; None if the owner has not named it."""
        return self._numbers.get(kind)

    async def ask(
        self,
        asked: Asked,
        query: bytes,
        arrived: float,
        size: int,
        traceparent: str | None,
        crop: tuple[int, int, float] | None = None,
        caller: str = "",
        outline: Outline | None = None,
    ) -> Told | Failed | Lost:
        """Has a picture classified. Cancelling the caller takes it out of the owner's queues.

        Args:
            asked: the picture, which is told when the owner wants it.
            query: what the caller asks for, as JSON.
            arrived: when the body's last byte arrived, on the monotonic clock.
            size: encoded bytes.
            traceparent: the span that this belongs to, if it is traced.
            crop: the number of a kind, the slot that has the crop, and the seconds that decoding took.
            caller: who asks.
            outline: the picture's, if it is known and there is no crop.
        """
        if not self.open:
            return Lost()
        self._last += 1
        number = self._last
        answer: asyncio.Future[Told | Failed | Lost] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked, answer
        cropped = None if crop is None else Cropped(number, *crop)
        told = None if outline is None else messages.Outline(*outline)
        # While the owner has enough to do, it need not be told of each picture by itself.
        patient = len(self._asked) > _ENOUGH
        asking = Ask(number, query, arrived, size, traceparent, cropped, caller, told)
        self._connection.send(asking, patient=patient)
        try:
            return await answer
        finally:
            if self._asked.pop(number, None) is not None:
                self._connection.send(Cancel(number))

    async def call(self, call: Call) -> Reply | Lost:
        """Has any other request answered. Its id is replaced."""
        if not self.open:
            return Lost()
        self._last += 1
        number = self._last
        reply: asyncio.Future[Reply | Lost] = asyncio.get_running_loop().create_future()
        self._called[number] = reply
        self._connection.send(msgspec.structs.replace(call, id=number))
        try:
            return await reply
        finally:
            if self._called.pop(number, None) is not None:
                self._connection.send(Cancel(number))

    def cropped(self, number: int, kind: int, slot: int, decode_s: float) -> None:
        """Says where the crop of a picture is."""
        self._connection.send(Cropped(number, kind, slot, decode_s))

    def undecoded(self, number: int, kind: int, failure: Failed) -> None:
        """Says why a picture cannot be decoded."""
        self._connection.send(Undecoded(number, kind, failure))

    def _received(self, message: FromOwner) -> None:
        if isinstance(message, Answered):
            kind = None if message.kind is None else self._kinds[message.kind]
            self._answer(message.id, Told(message, self._described[message.served], kind))
        elif isinstance(message, Failed):
            if message.slug not in PROBLEMS:
                raise ValueError(f"an owner named an unknown problem: {message.slug!r}")
            self._answer(message.id, message)
        elif isinstance(message, Decode):
            wanted = self._asked.get(message.id)
            if wanted is not None:
                wanted[0].wanted(self, message.id, message.kind)
        elif isinstance(message, Reply):
            called = self._called.pop(message.id, None)
            if called is not None and not called.done():
                called.set_result(message)
        elif isinstance(message, messages.Kind):
            kind = Kind(Preprocess.from_json(message.preprocess), message.max_pixels)
            self._kinds[message.number], self._numbers[kind] = kind, message.number
        else:
            self._described[message.number] = message

    def _answer(self, number: int, answer: Told | Failed) -> None:
        # Whoever was cancelled is no longer known.
        asked = self._asked.pop(number, None)
        if asked is not None and not asked[1].done():
            asked[1].set_result(answer)

    def _lost(self) -> None:
        asked, self._asked = self._asked, {}
        called, self._called = self._called, {}
        for _, answer in asked.values():
            if not answer.done():
                answer.set_result(Lost())
        for reply in called.values():
            if not reply.done():
                reply.set_result(Lost())
        self._told_lost(self)
