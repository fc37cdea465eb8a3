"""What becomes of a front's pictures when an owner dies, or when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from models.images.preprocess import picture_to_crop
from service.domain.classified import Classified
from service.domain.errors import Failure
from service.domain.prediction import Limits
from service.domain.query import Query
from service.fronts import classifier as module
from service.link.messages import (
    Ask,
    Cropped,
    Decode,
    Kind,
)
from tests.fakes import Fakes
from tests.front_sides import LARGE, LENET, MNIST, SMALL, HeldDecoding, answered, side
from tests.fronting import Front, front_of, owner_of, raw_owner
from tests.pictures import picture
from tests.waiting import soon


async def test_a_picture_whose_owner_dies_is_sent_to_the_next_with_the_crop_that_is_there(tmp_path: Path) -> None:
    async with side(tmp_path) as front:
        async with raw_owner(tmp_path / "0.sock") as owner:
            await asyncio.wait_for(front.owners.wait(), 10)
            waiting = [front.classify(data) for data in (SMALL, LARGE)]
            asks = await owner.tells(2)
            owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(asks[0].id, 0), Decode(asks[1].id, 0))
            await owner.tells(2)
            assert front.used == 2
        await soon(lambda: front.owners.one() is None)
        assert not any(task.done() for task in waiting)
        # They come to the next one in the order in which they came to the first.
        async with raw_owner(tmp_path / "0.sock") as owner:
            asks = await owner.tells(2)
            assert [ask.size for ask in asks if isinstance(ask, Ask)] == [len(SMALL), len(LARGE)]
            owner.send(Kind(5, MNIST.to_json(), 80_000_000), *(Decode(ask.id, 5) for ask in asks))
            croppeds = await owner.tells(2)
            # They were not decoded again.
            assert front.used == 2
            for cropped, data in zip(croppeds, (SMALL, LARGE), strict=True):
                assert isinstance(cropped, Cropped)
                crop = owner.windows[0].crop(cropped.slot, MNIST)
                assert (crop == picture_to_crop(data, MNIST, max_pixels=80_000_000)).all()
            owner.send(LENET, *(answered(ask.id, kind=5) for ask in asks))
            done = await asyncio.gather(*waiting)
            assert [type(result) for result in done] == [Classified] * 2
            await asyncio.sleep(0.02)
            assert owner.told == []


async def test_a_picture_with_which_five_owners_have_ended_is_given_up(tmp_path: Path) -> None:
    async with side(tmp_path) as front:
        waiting: asyncio.Task[Classified | Failure] | None = None
        for _ in range(5):
            async with raw_owner(tmp_path / "0.sock") as owner:
                await asyncio.wait_for(front.owners.wait(), 10)
                if waiting is None:
                    waiting = front.classify(SMALL)
                await owner.tells(1)
            await soon(lambda: front.owners.one() is None)
        assert waiting is not None
        failure = await asyncio.wait_for(waiting, 10)
        assert isinstance(failure, Failure)
        assert (failure.slug, "5 device owners" in failure.detail) == ("not-ready", True)
        assert front.used == 0


async def test_an_owner_that_dies_while_a_picture_is_decoded_leaves_one_slot_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldDecoding(monkeypatch)
    async with side(tmp_path) as front:
        async with raw_owner(tmp_path / "0.sock") as owner:
            await asyncio.wait_for(front.owners.wait(), 10)
            classifying = front.classify(LARGE)
            (ask,) = await owner.tells(1)
            owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(ask.id, 0))
            assert await asyncio.to_thread(held.began.wait, 10)
        async with raw_owner(tmp_path / "0.sock") as owner:
            (ask,) = await owner.tells(1)
            owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(ask.id, 0))
            # Both owners' decodings run now.
            await soon(lambda: held.count == 2)
            held.open.set()
            (cropped,) = await owner.tells(1)
            await asyncio.sleep(0.02)
            assert (front.used, isinstance(cropped, Cropped)) == (1, True)
            owner.send(LENET, answered(ask.id))
            assert isinstance(await classifying, Classified)
            assert front.used == 0


async def test_before_there_was_an_owner_pictures_are_refused_at_once(tmp_path: Path) -> None:
    async with side(tmp_path) as front:
        refused = await asyncio.wait_for(front.classify(), 10)
        assert isinstance(refused, Failure)
        assert (refused.slug, refused.detail) == ("not-ready", "the device owner is starting")


async def test_a_picture_that_no_new_owner_takes_in_time_is_refused_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.02)
    async with side(tmp_path) as front:
        async with raw_owner(tmp_path / "0.sock") as owner:
            await asyncio.wait_for(front.owners.wait(), 10)
            classifying = front.classify(query=Query(model="lenet5", latency_ms=80))
            (ask,) = await owner.tells(1)
            owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(ask.id, 0))
            await owner.tells(1)
        refused = await asyncio.wait_for(classifying, 10)
        assert isinstance(refused, Failure)
        assert refused.slug == "not-ready"
        assert "has ended" in refused.detail
        assert front.used == 0
        # One that comes later waits for as long as it may, and no longer.
        refused = await asyncio.wait_for(front.classify(query=Query(model="lenet5", latency_ms=20)), 10)
        assert isinstance(refused, Failure)
        assert refused.slug == "not-ready"


@asynccontextmanager
async def with_owner(fakes: Fakes, folder: Path) -> AsyncIterator[tuple[Front, Callable[[], Awaitable[None]]]]:
    """A front, and a device owner that a call replaces by a new one: it dies while its pictures wait."""
    stack = AsyncExitStack()

    async def replace() -> None:
        nonlocal stack
        await stack.aclose()
        stack = AsyncExitStack()
        await stack.enter_async_context(owner_of(fakes, folder / "0.sock"))

    async with front_of(fakes, folder) as front:
        await replace()
        await asyncio.wait_for(front.owners.wait(), 10)
        yield front, replace
        await stack.aclose()


async def test_pictures_that_wait_when_an_owner_dies_are_answered_once_by_the_next(
    fakes: Fakes, tmp_path: Path
) -> None:
    fakes.limits = Limits(max_batch_size=1)
    async with with_owner(fakes, tmp_path) as (front, replace):
        ask = "/classify?model=lenet5"
        assert (await front.client.post(ask, content=picture())).status_code == 200
        before = fakes.engines["lenet5@mnist"]
        with fakes.held("lenet5@mnist") as began:
            asking = [asyncio.create_task(front.client.post(ask, content=picture(value))) for value in range(8)]
            assert await asyncio.to_thread(began.wait, 10)
            await soon(lambda: fakes.queued("lenet5@mnist") == 7)
            assert front.slots_used == 8
            dying = asyncio.create_task(replace())
            await soon(lambda: front.owners.one() is None)
        await dying
        replies = await asyncio.wait_for(asyncio.gather(*asking), 20)
        assert [reply.status_code for reply in replies] == [200] * 8
        assert [reply.json()["top5"][0]["index"] for reply in replies] == list(range(8))
        assert front.slots_used == 0
        # The first one's batch ran on; nothing else did, and the next owner computed each picture once.
        assert before.batches == [1, 1]
        assert fakes.engines["lenet5@mnist"].batches == [1] * 8


async def test_owners_may_die_again_and_again(fakes: Fakes, tmp_path: Path) -> None:
    fakes.seconds = 0.002
    async with with_owner(fakes, tmp_path) as (front, replace):

        async def ask(value: int) -> int:
            index: int = -1
            for _ in range(10):
                reply = await front.client.post("/classify?model=lenet5", content=picture(value))
                assert reply.status_code == 200
                index = reply.json()["top5"][0]["index"]
            return index

        asking = [asyncio.create_task(ask(value)) for value in range(10)]
        for _ in range(5):
            await asyncio.sleep(0.02)
            await replace()
        assert await asyncio.gather(*asking) == list(range(10))
        assert front.slots_used == 0
