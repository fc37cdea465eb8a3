"""A front against owners that say anything: nothing reaches the event loop, every request ends, no slot stays in use,
and the next owner is asked as if nothing had been."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.images.preprocess import PRESETS
from service.fronts import owners as owners_module
from service.link.messages import (
    Answered,
    Ask,
    Call,
    Cropped,
    Decode,
    Described,
    Failed,
    FromFront,
    FromOwner,
    Kind,
    MemberTimes,
    Message,
    Reply,
    Times,
    Undecoded,
    Why,
    encode,
)
from tests.fakes import Fakes
from tests.fronting import Front, front_of, raw_owner
from tests.left_over import open_files
from tests.pictures import photo, picture
from tests.waiting import soon

#: All examples share a front, on purpose.
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
MNIST = PRESETS["mnist"]
LENET = Described(0, "lenet5", "lenet5@mnist", "mnist", "a paper", True, 99.4)
TIMES = Times(0.1, 0.2, 0.3, 1)

numbers = st.integers(0, 2) | st.sampled_from([-1, 2**63])
texts = st.sampled_from(["", "lenet5", "mnist", "undecodable", "overloaded", "internal", "nonsense", "\0"])
floats = st.floats() | st.sampled_from([0.0, 0.5, 1.0])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | floats | texts | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
#: How pictures are cropped: mostly as it can be, and else with a field that cannot.
preprocesses = st.sampled_from([preset.to_json() for preset in PRESETS.values() if preset.side < 300]) | st.builds(
    lambda field, value: {**MNIST.to_json(), field: value},
    st.sampled_from(["fit", "resize", "crop", "colour", "mean", "pad", "enlarge", "sharpen"]),
    st.sampled_from(["", "grey", None, 0, -1, 1, 2.5, []]),
)
times = st.builds(Times, floats, floats, floats, st.integers(-1, 3))
described = st.recursive(
    st.builds(Described, numbers, texts, texts, texts, texts, st.booleans(), st.none() | floats),
    lambda inner: st.builds(
        Described, numbers, texts, texts, texts, texts, st.booleans(), st.none() | floats, st.lists(inner, max_size=2)
    ),
    max_leaves=3,
)


def strategies(ids: list[int]) -> st.SearchStrategy[FromOwner]:
    """Messages of an owner that was asked under these ids."""
    known = st.sampled_from([*ids, 0, 2**63])
    answers = st.builds(
        Answered,
        known,
        numbers,
        st.lists(st.integers(-1, 12), max_size=4),
        st.lists(floats, max_size=4),
        times,
        st.none() | st.builds(Why, texts, st.none() | floats, st.lists(st.dictionaries(texts, values), max_size=2)),
        st.none() | st.lists(st.builds(MemberTimes, times, floats), max_size=2),
        st.none() | numbers,
    )
    failures = st.builds(
        Failed, known, texts, texts, st.dictionaries(texts, values, max_size=2), st.none() | texts, st.booleans()
    )
    headers = st.lists(
        st.tuples(st.sampled_from([b"a", b"content-length", b"\xff"]), st.binary(max_size=4)), max_size=2
    )
    return st.one_of(
        st.builds(Kind, numbers, preprocesses, st.integers(-1, 10**8)),
        st.builds(Decode, known, numbers),
        described,
        st.just(LENET),
        st.just(Kind(0, MNIST.to_json(), 10**8)),
        answers,
        failures,
        st.builds(Reply, known, st.integers(100, 599), headers, st.binary(max_size=10)),
    )


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + body


class Scene:
    """A front in an event loop that lasts from example to example; owners come and go."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.errors: list[dict[str, Any]] = []
        self.stack = AsyncExitStack()
        self.folder = folder
        self.front: Front
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.errors.append(context))
        fakes = Fakes(self.folder)
        self.front = await self.stack.enter_async_context(front_of(fakes, self.folder))
        async with raw_owner(self.folder / "0.sock") as owner:
            owner.answers = behaves
            await self.front.owners.wait()
            await self.serves()
        await soon(lambda: self.front.owners.one() is None)
        gc.collect()
        self.quiet = self.state()

    def state(self) -> tuple[int, int, int]:
        """Tasks, open files, and slots in use."""
        return len(asyncio.all_tasks()), open_files(), self.front.slots_used

    async def serves(self) -> None:
        for content, index in ((picture(7), 7), (picture(7, side=200), 7)):
            reply = await self.front.client.post("/classify?model=lenet5", content=content)
            assert (reply.status_code, reply.json()["top5"][0]["index"]) == (200, index)
        assert (await self.front.client.get("/models")).status_code == 200

    async def visited(self, data: st.DataObject) -> None:
        """An owner comes, is asked, says anything, and goes; then one comes that behaves."""
        client = self.front.client
        async with raw_owner(self.folder / "0.sock") as owner:
            await self.front.owners.wait()
            asking = [
                asyncio.create_task(client.post("/classify?model=lenet5", content=content))
                for content in (picture(7), photo())
            ] + [asyncio.create_task(client.get("/models"))]
            asked = await owner.tells(3)
            ids = [message.id for message in asked if isinstance(message, Ask | Call)]
            connection = owner.connections[-1]
            for sent in data.draw(st.lists(frames(ids), max_size=8)):
                if connection._transport is None:
                    break
                connection._transport.write(sent)
                if data.draw(st.booleans()):
                    await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        async with raw_owner(self.folder / "0.sock") as owner:
            owner.answers = behaves
            replies = await asyncio.wait_for(asyncio.gather(*asking), 10)
            assert all(reply.status_code in range(100, 600) for reply in replies)
            await soon(lambda: self.front.slots_used == 0)
            await self.front.owners.wait()
            await self.serves()
        await soon(lambda: self.front.owners.one() is None)

    async def settles(self) -> None:
        await soon(lambda: len(asyncio.all_tasks()) == self.quiet[0])
        gc.collect()
        await soon(lambda: all(now <= before for now, before in zip(self.state(), self.quiet, strict=True)))
        assert self.errors == []

    def end(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()
        assert self.errors == []


def behaves(message: FromFront) -> list[FromOwner]:
    """An owner of LeNet-5."""
    if isinstance(message, Ask) and message.crop is None:
        return [Kind(0, MNIST.to_json(), 10**8), Decode(message.id, 0)]
    if isinstance(message, Ask | Cropped):
        # An owner before may have wanted files, so that this one is sent a file and has not named a kind yet.
        kind = Kind(0, MNIST.to_json(), 10**8)
        return [kind, LENET, Answered(message.id, 0, [7, 8, 9, 0, 1], [0.5, 0.2, 0.1, 0.05, 0.01], TIMES, kind=0)]
    if isinstance(message, Call):
        return [Reply(message.id, 200, [], json.dumps({}).encode())]
    return [Failed(message.id, message.failure.slug, "", {})] if isinstance(message, Undecoded) else []


@st.composite
def frames(draw: st.DrawFn, ids: list[int]) -> bytes:
    """Bytes as an owner could send them: mostly messages, some of them bent."""
    how = draw(st.sampled_from(["valid"] * 8 + ["bent", "array", "random", "length"]))
    if how == "random":
        return draw(st.binary(max_size=40))
    if how == "length":
        return draw(st.sampled_from([0, 2**24, 2**24 + 1, 2**32 - 1])).to_bytes(4, "little")
    if how == "array":
        return frame(msgspec.msgpack.encode([draw(st.integers(-1, 13)), *draw(st.lists(values, max_size=8))]))
    message: Message = draw(strategies(ids))
    if how == "bent":
        fields = msgspec.msgpack.decode(encode(message))
        fields[draw(st.integers(0, len(fields) - 1))] = draw(values | st.just(math.nan))
        return frame(msgspec.msgpack.encode(fields))
    return frame(encode(message))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    patch = pytest.MonkeyPatch()
    patch.setattr(owners_module, "_SOON_S", 0.001)
    # Each message that is refused is logged, with frames that refer to what they were about.
    logging.disable(logging.CRITICAL)
    made = Scene(tmp_path_factory.mktemp("fronts"))
    yield made
    made.end()
    logging.disable(logging.NOTSET)
    patch.undo()


@pytest.fixture(autouse=True)
def all_is_left_as_it_was(scene: Scene) -> Iterator[None]:
    """Instead of the folder's fixture, as the scene's loop and tasks outlive a test: after all examples of a test
    nothing is left of what they were about."""
    yield
    scene.runner.run(scene.settles())


@pytest.fixture(autouse=True)
def looks_often() -> None:
    """The scene looks for owners more often still."""


@settings(max_examples=100, suppress_health_check=CHECKS)
@given(data=st.data())
def test_an_owner_may_say_anything(scene: Scene, data: st.DataObject) -> None:
    scene.runner.run(scene.visited(data))
