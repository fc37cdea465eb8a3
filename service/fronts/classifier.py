"""Has a device owner classify the pictures of requests, and decodes them for it.

An owner that dies loses nothing: classifying a picture twice does no harm, so the front sends it again to the next
owner, until its deadline.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable

import numpy as np

from models.images.outline import glance
from models.images.preprocess import Preprocess
from service.batching.places import Places
from service.config.settings import Settings
from service.domain.classified import Classified
from service.domain.deadlines import Deadlines
from service.domain.decision import Considered, Routing
from service.domain.errors import (
    DEADLINE_MISSED,
    FailedElsewhereError,
    Failure,
    NotReadyError,
    OverloadedError,
    failure_of,
    known_failure,
)
from service.domain.picture import Picture
from service.domain.prediction import Prediction
from service.domain.query import Query
from service.fronts.owner import Kind, Owner, Told
from service.fronts.owners import Owners
from service.inference.decoders import Decoders
from service.inference.decoding import decode_small
from service.inference.ensemble import Average, Member
from service.link.crops import SLOTS, NoSlotError, Slots
from service.link.messages import Answered, Failed, Times
from service.telemetry.tracing import traceparent

#: How much longer than the owner the front waits for an answer: the owner keeps the deadlines, and says more about it.
_GRACE_S = 1.0
#: A picture is given up after so many owners have ended with it.
_MOST_OWNERS = 5
_MOST_NAMES = 1000
#: A named model, and the label set if one was named.
_Name = tuple[str, str | None]


class FrontClassifier:
    """Classifies by asking a device owner: a ``domain.classified.Classifies``. Not thread-safe.

    Args:
        owners: who can be asked.
        settings: the default latency is read from them.
        decoders: the threads that decode pictures.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        owners: Owners,
        settings: Settings,
        decoders: Decoders | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.owners = owners
        self.clock = clock
        self.deadlines = Deadlines(clock)
        self.decoders = decoders or Decoders(2, settings.most_work)
        self.default_latency_ms = settings.default_latency_ms
        self.places = Places(SLOTS, 1)
        """Of the memory for crops, which one caller must not fill."""
        self.asked = 0
        """How many pictures are here."""
        self.names: dict[_Name, str] = {}
        """The model that answered for a name, as answers call it."""
        self.hints: dict[_Name, Kind] = {}
        """How the last picture for a name was wanted."""

    def begin(self, query: Query, arrived: float, caller: str = "") -> FrontAsking:
        return FrontAsking(self, query, arrived, caller)

    def remember(self, name: _Name, model: str, kind: Kind | None) -> None:
        """Remembers what a name stood for, and how its pictures were wanted."""
        if len(self.names) >= _MOST_NAMES:
            # Callers may name any ensembles.
            self.names.clear()
            self.hints.clear()
        self.names[name] = model
        if kind is not None:
            self.hints[name] = kind

    def close(self) -> None:
        """Ends the threads."""
        self.decoders.close()


class FrontAsking:
    """One request: a ``domain.classified.Asking``."""

    __slots__ = ("_all", "_arrived", "_caller", "_name", "_query")

    def __init__(self, classifier: FrontClassifier, query: Query, arrived: float, caller: str = "") -> None:
        self._all = classifier
        self._query = query
        self._arrived = arrived
        self._caller = caller
        self._name: _Name | None = None if query.model is None else (query.model, query.labels)

    @property
    def named(self) -> str | None:
        return None if self._name is None else self._all.names.get(self._name)

    async def classify(self, picture: bytes | Picture) -> Classified | Failure:
        assert isinstance(picture, bytes)
        allowed_s = self._query.allowed_s(self._all.default_latency_ms)
        if self._all.owners.one() is None and not self._all.owners.seen:
            return failure_of(NotReadyError("the device owner is starting"))
        everything, caller = self._all, self._caller
        try:
            everything.places.check(caller, everything.asked, 0, 0, 0.0)
        except OverloadedError as error:
            return failure_of(error)
        asked = AskedPicture(everything, picture, caller)
        everything.places.take(caller, 0)
        everything.asked += 1
        try:
            with self._all.deadlines.until(self._arrived + allowed_s + _GRACE_S):
                return await self._classified(asked)
        except TimeoutError:
            if self._all.owners.one() is None:
                return failure_of(NotReadyError("the device owner has ended, and no other has started in time"))
            return Failure(DEADLINE_MISSED, "the deadline passed before there was an answer", model=self.named)
        finally:
            everything.asked -= 1
            everything.places.give_back(caller, 0)
            asked.over()

    async def check(self) -> None:
        # The owner finds an error of the query before it wants the picture. What else is wrong is not the question.
        await self.classify(b"")

    async def _classified(self, asked: AskedPicture) -> Classified | Failure:
        for _ in range(_MOST_OWNERS):
            owner = await self._all.owners.wait()
            try:
                crop = await self._ahead(asked, owner)
            except Exception as error:
                return asked.failure(error, self.named)
            outline = glance(asked.data) if crop is None else None
            answer = await owner.ask(
                asked,
                _json(self._query),
                self._arrived,
                len(asked.data),
                traceparent(),
                crop,
                self._caller,
                outline,
            )
            if isinstance(answer, Told):
                return self._classified_as(answer)
            if isinstance(answer, Failed):
                failure = Failure(answer.slug, answer.detail, answer.extras, answer.model)
                if answer.whole:
                    raise FailedElsewhereError(failure)
                return failure
        # It may be the picture that kills them.
        return failure_of(NotReadyError(f"{_MOST_OWNERS} device owners have ended while they had this picture"))

    async def _ahead(self, asked: AskedPicture, owner: Owner) -> tuple[int, int, float] | None:
        """Decodes the picture as the owner will want it, if that is known: a named model without a budget."""
        if self._name is None or self._query.has_budget:
            return None
        kind = self._all.hints.get(self._name)
        number = None if kind is None else owner.number_of(kind)
        if kind is None or number is None or not asked.fits(owner.memory, kind):
            return None
        slot, decode_s = await asked.decoded(owner.memory, kind)
        return number, slot, decode_s

    def _classified_as(self, told: Told) -> Classified:
        answer, served, kind = told
        if self._name is not None:
            self._all.remember(self._name, served.model, kind)
        why = answer.why
        routing = (
            None
            if why is None
            else Routing(
                reason=why.reason,
                predicted_ms=why.predicted_ms,
                considered=[Considered(**entry) for entry in why.considered],
            )
        )
        return Classified(_prediction(answer), served, routing, self._all.clock() - self._arrived)


class AskedPicture:
    """A picture that an owner was asked to classify: a ``fronts.owner.Asked``.

    Args:
        classifier: the front's.
        data: the encoded picture.
        caller: who asks.
    """

    __slots__ = ("_all", "_caller", "_crops", "_tasks", "data")

    def __init__(self, classifier: FrontClassifier, data: bytes, caller: str = "") -> None:
        self._all = classifier
        self._caller = caller
        self.data = data
        self._crops: dict[tuple[Slots, Preprocess | None], tuple[int, float]] = {}
        """The slots of its crops or file, and how many seconds decoding took. Owners may have different memories."""
        self._tasks: set[asyncio.Task[None]] = set()

    def over(self) -> None:
        """Frees the memory: the picture was answered, or nobody waits for it any more."""
        for (memory, _), (slot, _) in self._crops.items():
            memory.free(slot)
        self._crops.clear()
        for task in self._tasks:
            task.cancel()

    def wanted(self, owner: Owner, number: int, kind: int) -> None:
        task = asyncio.get_running_loop().create_task(self._send(owner, number, kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, owner: Owner, number: int, kind: int) -> None:
        try:
            slot, decode_s = await self.decoded(owner.memory, owner.kind(kind))
        except Exception as error:
            failure = self.failure(error, None)
            owner.undecoded(number, kind, Failed(number, failure.slug, failure.detail, failure.extras))
        else:
            owner.cropped(number, kind, slot, decode_s)

    def fits(self, memory: Slots, kind: Kind) -> bool:
        """Whether it fits into a slot: crops do, files may not."""
        return kind.preprocess is not None or len(self.data) <= memory.size

    async def decoded(self, memory: Slots, kind: Kind) -> tuple[int, float]:
        """Decodes it, unless that was done, or an owner wants the file.

        Args:
            memory: where the crop is to lie.
            kind: how it is cropped.

        Returns:
            The slot with the crop, and how many seconds decoding took.

        Raises:
            PictureError: it is refused.
            NoSlotError: this front has too many pictures.
        """
        preprocess, max_pixels = kind
        found = self._crops.get((memory, preprocess))
        if found is not None:
            return found
        started = self._all.clock()
        if preprocess is None:
            file = self._crops[memory, None] = memory.put(np.frombuffer(self.data, np.uint8)), 0.0
            return file
        crop = decode_small(self.data, preprocess, max_pixels)
        if crop is None:
            crop = await self._all.decoders.decode(self.data, preprocess, max_pixels, caller=self._caller)
        # The next owner may have wanted the same meanwhile, and one slot alone would be freed.
        found = self._crops.get((memory, preprocess))
        if found is None:
            found = self._crops[memory, preprocess] = memory.put(crop), self._all.clock() - started
        return found

    @staticmethod
    def failure(error: Exception, model: str | None) -> Failure:
        """What is answered if the picture could not be decoded."""
        if isinstance(error, NoSlotError):
            error = OverloadedError("all memory for decoded pictures is in use", retry_after_s=1.0)
        failure = known_failure(error, "a picture could not be decoded")
        return Failure(failure.slug, failure.detail, failure.extras, model)


@functools.lru_cache(maxsize=1024)
def _json(query: Query) -> bytes:
    return query.model_dump_json(exclude_defaults=True).encode()


def _prediction(answer: Answered) -> Prediction:
    probabilities, indices, times = tuple(answer.probabilities), tuple(answer.indices), answer.times
    if answer.members is None:
        return Prediction(probabilities, indices, times.batch_size, times.decode_s, times.queue_s, times.forward_s)
    members = tuple(Member(_times_alone(member.times), member.total_s) for member in answer.members)
    return Average(
        probabilities, indices, times.batch_size, times.decode_s, times.queue_s, times.forward_s, members=members
    )


def _times_alone(times: Times) -> Prediction:
    return Prediction((), (), times.batch_size, times.decode_s, times.queue_s, times.forward_s)
