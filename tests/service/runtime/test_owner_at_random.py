"""A device owner against fronts that say anything: nothing reaches the event loop, no other front is harmed, and
nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.checkpoints.catalogue import Catalogue
from service.link.messages import FILE, Answered, Ask, Call, Cancel, Cropped, Decode, Failed, Message, Undecoded, encode
from tests.fakes import Fakes
from tests.fronting import RawFront, owner_of, raw_front
from tests.left_over import mappings, open_files
from tests.waiting import soon

LENET = Catalogue().find("lenet5@mnist").preprocess
#: All examples share an owner, on purpose.
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
QUERIES = (b'{"model":"lenet5"}', b'{"model":"lenet5","k":2}', b"{}", b'{"latency_ms":0.001}', b'{"model":"x"}', b"[")

#: Few enough that messages meet: the same id twice, a crop for a picture that was asked about, and so on.
ids = st.integers(0, 4) | st.sampled_from([-1, 2**32, 2**63, 2**64 - 1])
kinds = st.integers(0, 2) | st.sampled_from([FILE, -2, 2**63])
slots = st.integers(0, 3) | st.sampled_from([-1, 1023, 1024, 2**63, -(2**63)])
times = st.floats(0, 1e9) | st.sampled_from([0.0, 0.001, 1e9])
texts = st.sampled_from(["", "lenet5", "undecodable", "overloaded", "internal", "nonsense", "/problems/x", "\0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
crops = st.builds(Cropped, ids, kinds, slots, times)
failures = st.builds(
    Failed, ids, texts, texts, st.dictionaries(texts, values, max_size=2), st.none() | texts, st.booleans()
)
asks = st.builds(
    Ask,
    ids,
    st.sampled_from(QUERIES) | st.binary(max_size=20),
    times | st.just(None).map(lambda _: time.monotonic()),
    st.integers(0, 2**40),
    st.none() | texts | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    st.none() | crops,
)
calls = st.builds(
    Call,
    ids,
    st.sampled_from(["GET", "HEAD", "POST", "DELETE", "", "\0"]),
    st.sampled_from(["/healthz", "/readyz", "/models", "/models/lenet5/load", "/classify", "", "x", "/ä\0"]),
    st.binary(max_size=10),
    st.lists(st.tuples(st.sampled_from([b"host", b"Content-Length", b"", b"\xff"]), st.binary(max_size=5)), max_size=3),
    st.none() | st.tuples(texts, st.integers(-1, 2**16)),
)
valid = st.one_of(asks, crops, st.builds(Undecoded, ids, kinds, failures), st.builds(Cancel, ids), calls)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + body


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Bytes as a front could send them: mostly messages, some of them bent."""
    how = draw(st.sampled_from(["valid"] * 6 + ["bent", "array", "random", "cut", "length"]))
    if how == "random":
        return draw(st.binary(max_size=40))
    if how == "length":
        return draw(st.sampled_from([0, 2**24, 2**24 + 1, 2**31, 2**32 - 1])).to_bytes(4, "little")
    if how == "array":
        fields = draw(st.lists(values, max_size=8))
        return frame(msgspec.msgpack.encode([draw(st.integers(-1, 13)), *fields]))
    message: Message = draw(valid)
    whole = encode(message)
    if how == "cut":
        return frame(whole)[: draw(st.integers(0, len(whole)))]
    if how == "bent":
        # One field of a message is another type's, or not a number.
        fields = msgspec.msgpack.decode(whole)
        fields[draw(st.integers(0, len(fields) - 1))] = draw(values | st.just(math.nan))
        return frame(msgspec.msgpack.encode(fields))
    return frame(whole)


class Scene:
    """An owner with a front that behaves, in an event loop that lasts from example to example."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.errors: list[dict[str, Any]] = []
        self.stack = AsyncExitStack()
        self.fakes = Fakes(folder)
        self.path = folder / "0.sock"
        self.number = 10
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.errors.append(context))
        await self.stack.enter_async_context(owner_of(self.fakes, self.path))
        self.good = await RawFront.of(self.path)
        self.slot = self.good.put(7, LENET)
        self.good.send(Ask(1, QUERIES[0], time.monotonic(), 300))
        await self.good.tells(2)
        self.good.send(Cropped(1, 0, self.slot, 0.001))
        await self.good.tells(2)
        self.quiet = self.state()

    def state(self) -> tuple[int, int, int, int]:
        """Tasks, open files, mappings, and pictures that wait."""
        return len(asyncio.all_tasks()), open_files(), mappings(), self.fakes.queued("lenet5@mnist")

    async def visited(self, sent: list[bytes], parts: int) -> None:
        """A stranger connects, sends that in so many parts, and goes."""
        data = b"".join(sent)
        size = max(1, -(-len(data) // parts))
        async with raw_front(self.path) as stranger:
            for start in range(0, len(data), size):
                transport = stranger.connection._transport
                if transport is None:
                    break
                transport.write(data[start : start + size])
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            await self.serves(full=True)
        await soon(lambda: self.fakes.queued("lenet5@mnist") == 0)
        await self.serves()

    async def serves(self, *, full: bool = False) -> None:
        """The front that behaves is answered, and with what its crop says.

        Args:
            full: whether the queue may be full: every front may say that its pictures are large.
        """
        self.number += 1
        self.good.send(Ask(self.number, QUERIES[0], time.monotonic(), 300, None, Cropped(1, 0, self.slot, 0.001)))
        (answered,) = await asyncio.wait_for(self.good.tells(1), 10)
        assert isinstance(answered, Answered | Failed)
        assert answered.id == self.number
        if isinstance(answered, Failed):
            assert (answered.slug, full) == ("overloaded", True)
        else:
            assert answered.indices[0] == 7

    async def settles(self) -> None:
        """All is as it was before anybody came, but for this task."""
        await soon(lambda: self.state()[0] == self.quiet[0])
        gc.collect()
        await soon(lambda: self.state() == self.quiet)
        assert self.errors == []

    def end(self) -> None:
        async def end() -> None:
            await self.good.end()
            await self.stack.aclose()

        self.runner.run(end())
        self.runner.close()
        assert self.errors == []


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    # Each message that is refused is logged, with frames that refer to what they were about.
    logging.disable(logging.CRITICAL)
    made = Scene(tmp_path_factory.mktemp("owner"))
    yield made
    made.end()
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def all_is_as_before(scene: Scene) -> Iterator[None]:
    """After all examples of a test nothing is left of the fronts in them."""
    yield
    scene.runner.run(scene.settles())


@settings(max_examples=150, suppress_health_check=CHECKS)
@given(sent=st.lists(frames(), max_size=8), parts=st.integers(1, 30))
def test_a_front_may_say_anything(scene: Scene, sent: list[bytes], parts: int) -> None:
    scene.runner.run(scene.visited(sent, parts))


@settings(max_examples=150, suppress_health_check=CHECKS)
@given(sent=st.lists(valid.map(encode).map(frame), min_size=1, max_size=12))
def test_a_front_may_send_valid_messages_in_any_order(scene: Scene, sent: list[bytes]) -> None:
    scene.runner.run(scene.visited(sent, 1))


@settings(max_examples=40, suppress_health_check=CHECKS)
@given(crops_first=st.booleans(), numbers=st.lists(st.integers(1, 2**63), unique=True, min_size=1, max_size=20))
def test_all_pictures_of_a_front_that_behaves_are_answered_once(
    scene: Scene, crops_first: bool, numbers: list[int]
) -> None:
    async def run() -> None:
        front = await RawFront.of(scene.path)
        slot = front.put(5, LENET)
        for number in numbers:
            front.send(
                Ask(
                    number,
                    QUERIES[0],
                    time.monotonic(),
                    300,
                    None,
                    Cropped(number, 0, slot, 0.0) if crops_first else None,
                )
            )
        answered: list[int] = []
        while len(answered) < len(numbers):
            (message,) = await front.tells(1)
            if isinstance(message, Decode):
                front.send(Cropped(message.id, message.kind, slot, 0.0))
            elif isinstance(message, Answered):
                assert message.indices[0] == 5
                answered.append(message.id)
        assert sorted(answered) == sorted(numbers)
        await front.end()

    scene.runner.run(run())
