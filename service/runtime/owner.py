"""A device owner: decides, queues and computes for the fronts that connect to it (``link/``).

A front's pictures are classified as those of this process are, by the same classifier; only their bytes are elsewhere.
When a front has gone, what it asked for is cancelled, which frees its places in the queues.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from starlette.types import ASGIApp

from models.images.outline import Outline
from models.images.preprocess import Preprocess
from service.domain.classified import Classified, Classifies, Served
from service.domain.errors import PROBLEMS, FailedElsewhereError, Failure, known_failure
from service.domain.picture import Decoded
from service.domain.prediction import Prediction
from service.domain.query import Query
from service.inference.ensemble import Average
from service.link import messages
from service.link.connection import Connection
from service.link.crops import Window
from service.link.messages import Answered, Ask, Call, Cancel, Cropped, Decode, Described, FromFront, Kind, Undecoded
from service.link.sockets import HandshakeError, listen, welcome
from service.runtime.calls import called
from service.telemetry.tracing import continued

log = logging.getLogger(__name__)

#: How many checkpoints and ensembles a front knows at once.
_MOST_DESCRIBED = 256
#: How long no front is accepted after one could not be: most likely too many files are open.
_ACCEPT_AGAIN_S = 0.1


class Duties(NamedTuple):
    """What an owner does for fronts."""

    classifies: Classifies
    others: ASGIApp
    """Answers all HTTP requests that do not classify pictures."""
    max_pixels: int
    largest_crop: int
    """Bytes of the largest crop of any checkpoint."""


@asynccontextmanager
async def owning(path: Path, duties: Duties) -> AsyncIterator[None]:
    """Serves fronts on a Unix socket while the block runs.

    Args:
        path: the socket's.
        duties: what is done for them.

    Raises:
        OSError: the socket cannot be made.
    """
    listener = listen(path)
    fronts: set[Front] = set()
    accepting = asyncio.create_task(_accept(listener, duties, fronts))
    try:
        yield
    finally:
        accepting.cancel()
        with suppress(asyncio.CancelledError):
            await accepting
        listener.close()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - it is a local socket
        for front in tuple(fronts):
            front.close()


async def _accept(listener: socket.socket, duties: Duties, fronts: set[Front]) -> None:
    loop = asyncio.get_running_loop()
    beginning: set[asyncio.Task[None]] = set()
    try:
        while True:
            try:
                connected, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("a front could not be accepted: %s", error)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            task = loop.create_task(_begin(connected, duties, fronts))
            beginning.add(task)
            task.add_done_callback(beginning.discard)
    finally:
        for task in tuple(beginning):
            task.cancel()


async def _begin(connected: socket.socket, duties: Duties, fronts: set[Front]) -> None:
    try:
        connected.setblocking(False)
        accepted = await welcome(connected, duties.largest_crop)
    except HandshakeError as error:
        log.warning("%s", error)
        connected.close()
        return
    except BaseException:
        connected.close()
        raise
    front = Front(duties, accepted.window, fronts.discard)
    fronts.add(front)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: front.connection, connected)


class Front:
    """One front, on the owner's side.

    Args:
        duties: what is done for it.
        window: its memory for crops.
        gone: called once, when the connection has ended.
    """

    def __init__(self, duties: Duties, window: Window, gone: Callable[[Front], None]) -> None:
        self._duties = duties
        self.window = window
        self._gone = gone
        self.connection: Connection[FromFront] = Connection(messages.from_front, self._received, self._lost)
        self._loop = asyncio.get_running_loop()
        self._pictures: dict[int, FrontPicture] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._kinds: dict[Preprocess, int] = {}
        self._described: dict[tuple[object, ...], int] = {}

    def close(self) -> None:
        """Ends the connection."""
        self.connection.close()

    def _lost(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._gone(self)

    def _received(self, message: FromFront) -> None:
        if isinstance(message, Cropped | Undecoded):
            # A picture whose request was cancelled meanwhile is no longer known.
            if (known := self._pictures.get(message.id)) is not None:
                known.came(message)
        elif isinstance(message, Cancel):
            task = self._tasks.get(message.id)
            if task is not None:
                task.cancel()
        elif message.id in self._tasks:
            raise ValueError(f"a front asked twice under the id {message.id}")
        elif isinstance(message, Ask):
            picture = FrontPicture(self, message)
            self._pictures[message.id] = picture
            self._begin(message.id, self._classify(message, picture))
        else:
            self._begin(message.id, self._call(message))

    def _begin(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks[number] = task
        task.add_done_callback(functools.partial(self._ended, number))

    def _ended(self, number: int, _task: asyncio.Task[None]) -> None:
        del self._tasks[number]
        self._pictures.pop(number, None)

    async def _classify(self, ask: Ask, picture: FrontPicture) -> None:
        try:
            asking = self._duties.classifies.begin(_query(ask.query), ask.arrived, ask.caller)
        except Exception as error:
            self.connection.send(_failed(ask.id, known_failure(error), whole=True))
            return
        if ask.traceparent is None:
            result = await asking.classify(picture)
        else:
            with continued(ask.traceparent):
                result = await asking.classify(picture)
        if isinstance(result, Failure):
            self.connection.send(_failed(ask.id, result))
        else:
            single = asking.named is not None and not isinstance(result.prediction, Average)
            self.connection.send(self._answered(ask.id, result, picture.kind if single else None))

    def _answered(self, number: int, result: Classified, kind: int | None) -> Answered:
        prediction, served, routing, _total_s = result
        return Answered(
            number,
            self._number_of(served),
            list(prediction.indices),
            list(prediction.probabilities),
            _times(prediction),
            None if routing is None else messages.Why(**routing.model_dump()),
            [messages.MemberTimes(_times(p), total_s) for p, total_s in prediction.members]
            if isinstance(prediction, Average)
            else None,
            kind,
        )

    def _number_of(self, served: Served) -> int:
        """The number under which this front knows what served; describes it first, if need be."""
        members: Sequence[Served] = getattr(served, "members", ())
        # Another file of the same name differs in one of these.
        key = (served.name, served.origin, served.top1, *((m.origin, m.top1) for m in members))
        number = self._described.get(key)
        if number is None:
            if len(self._described) == _MOST_DESCRIBED:
                # Callers may name any ensembles.
                number = self._described.pop(next(iter(self._described)))
            else:
                number = len(self._described)
            self._described[key] = number
            self.connection.send(_description(served, number))
        return number

    async def _call(self, call: Call) -> None:
        self.connection.send(await called(self._duties.others, call))

    def kind_of(self, preprocess: Preprocess) -> int:
        """The number under which this front knows a kind; tells it first, if need be."""
        kind = self._kinds.get(preprocess)
        if kind is None:
            kind = self._kinds[preprocess] = len(self._kinds)
            self.connection.send(Kind(kind, preprocess.to_json(), self._duties.max_pixels))
        return kind


class FrontPicture:
    """A front's picture: a ``domain.picture.Picture``."""

    __slots__ = ("_came", "_front", "_id", "_size", "_waiting", "kind", "outline")

    def __init__(self, front: Front, ask: Ask) -> None:
        self._front = front
        self._id = ask.id
        self._size = ask.size
        self._came: dict[int, Cropped | Undecoded] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.kind: int | None = None
        """The kind that was wanted last."""
        told = ask.outline
        self.outline = None if told is None else Outline(*msgspec.structs.astuple(told))
        if ask.crop is not None:
            self._came[ask.crop.kind] = ask.crop

    def __len__(self) -> int:
        return self._size

    def here(self, preprocess: Preprocess) -> Decoded | None:
        self.kind = self._front.kind_of(preprocess)
        found = self._came.get(self.kind)
        if not isinstance(found, Cropped):
            return None
        return Decoded(self._front.window.crop(found.slot, preprocess), found.decode_s)

    async def file(self) -> bytes | None:
        if self._size > self._front.window.size:
            return None
        # The next picture is wanted as a file too, whether or not the device decodes this one.
        self.kind = messages.FILE
        found = await self._wanted(messages.FILE)
        if isinstance(found, Undecoded):
            return None
        return self._front.window.file(found.slot, self._size)

    async def decoded(self, preprocess: Preprocess, max_pixels: int) -> Decoded:
        kind = self._front.kind_of(preprocess)
        if self.kind != messages.FILE:
            self.kind = kind
        found = await self._wanted(kind)
        if isinstance(found, Undecoded):
            failure = found.failure
            raise FailedElsewhereError(Failure(failure.slug, failure.detail, failure.extras))
        return Decoded(self._front.window.crop(found.slot, preprocess), found.decode_s)

    async def _wanted(self, kind: int) -> Cropped | Undecoded:
        """What the front says of the picture in a kind, asked for if need be."""
        if kind not in self._came:
            waiting = self._waiting.get(kind)
            if waiting is None:
                waiting = self._waiting[kind] = asyncio.get_running_loop().create_future()
                self._front.connection.send(Decode(self._id, kind))
            # Several members of an ensemble may wait for the same.
            await asyncio.shield(waiting)
        return self._came[kind]

    def came(self, message: Cropped | Undecoded) -> None:
        """Notes what the front says of the picture.

        Raises:
            ValueError: it names a kind of problem that does not exist.
        """
        if isinstance(message, Undecoded) and message.failure.slug not in PROBLEMS:
            raise ValueError(f"a front named an unknown problem: {message.failure.slug!r}")
        self._came[message.kind] = message
        waiting = self._waiting.pop(message.kind, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


@functools.lru_cache(maxsize=1024)
def _query(text: bytes) -> Query:
    return Query.model_validate_json(text)


def _failed(number: int, failure: Failure, *, whole: bool = False) -> messages.Failed:
    return messages.Failed(number, failure.slug, failure.detail, failure.extras, failure.model, whole)


def _times(prediction: Prediction) -> messages.Times:
    return messages.Times(
        prediction.decode_s,
        prediction.queue_s,
        prediction.forward_s,
        prediction.batch_size,
    )


def _description(served: Served, number: int) -> Described:
    members = [_description(member, 0) for member in getattr(served, "members", ())]
    return Described(
        number, served.model, served.name, served.labels, served.origin, served.trained, served.top1, members
    )
