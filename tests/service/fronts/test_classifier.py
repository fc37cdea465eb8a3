"""A front's pictures: what it says to owners and when, and what it decodes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from models.images.preprocess import PRESETS, picture_to_crop
from service.domain.classified import Classified
from service.domain.errors import DEADLINE_MISSED, FailedElsewhereError, Failure
from service.domain.query import Query
from service.fronts import classifier as module
from service.inference.ensemble import Average
from service.link import crops
from service.link.messages import (
    Answered,
    Ask,
    Cancel,
    Cropped,
    Decode,
    Described,
    Failed,
    Kind,
    MemberTimes,
    Undecoded,
    Why,
)
from tests.front_sides import BY_NAME, LARGE, LENET, MNIST, SMALL, TIMES, HeldDecoding, answered, pair, side
from tests.fronting import RawOwner, raw_owner
from tests.pictures import picture
from tests.waiting import soon

IMAGENET = max(PRESETS.values(), key=lambda preset: preset.side)


async def first_time(owner: RawOwner) -> None:
    """Answers a picture as to a front that knows nothing yet."""
    (ask,) = await owner.tells(1)
    assert isinstance(ask, Ask)
    assert ask.crop is None
    owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(ask.id, 0))
    (cropped,) = await owner.tells(1)
    assert isinstance(cropped, Cropped)
    owner.send(LENET, answered(ask.id, kind=0))


async def test_one_caller_does_not_fill_the_memory_of_a_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", 18)
    async with pair(tmp_path) as (front, owner):
        greedy = [front.classify(caller="greedy") for _ in range(30)]
        await owner.tells(16)
        newcomer = front.classify(caller="newcomer")
        (ask,) = await owner.tells(1)
        assert isinstance(ask, Ask)
        assert ask.caller == "newcomer"
        refused = [task.result() for task in greedy if task.done()]
        assert [failure.slug for failure in refused if isinstance(failure, Failure)] == ["overloaded"] * 14
        for task in (*greedy, newcomer):
            task.cancel()
        await asyncio.gather(*greedy, newcomer, return_exceptions=True)
        assert (front.classifier.asked, front.classifier.places._held) == (0, {})


async def test_the_owner_is_told_who_asks(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        classifying = [front.classify(caller=caller) for caller in ("192.0.2.7", "key:x")]
        asks = await owner.tells(2)
        assert [ask.caller for ask in asks if isinstance(ask, Ask)] == ["192.0.2.7", "key:x"]
        for ask in asks:
            assert isinstance(ask, Ask)
            owner.send(LENET, answered(ask.id))
        await asyncio.gather(*classifying)


async def test_a_picture_is_decoded_when_the_owner_wants_it_and_as_it_wants_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        classifying = front.classify()
        (ask,) = await owner.tells(1)
        assert isinstance(ask, Ask)
        assert (Query.model_validate_json(ask.query), ask.size, ask.traceparent, ask.crop) == (
            BY_NAME,
            len(SMALL),
            None,
            None,
        )
        assert front.used == 0
        owner.send(Kind(3, MNIST.to_json(), 80_000_000), Decode(ask.id, 3))
        (cropped,) = await owner.tells(1)
        assert isinstance(cropped, Cropped)
        assert (cropped.id, cropped.kind, front.used) == (ask.id, 3, 1)
        crop = owner.windows[0].crop(cropped.slot, MNIST)
        assert (crop == picture_to_crop(SMALL, MNIST, max_pixels=80_000_000)).all()
        assert cropped.decode_s > 0
        owner.send(LENET, answered(ask.id, kind=3))
        done = await classifying
        assert isinstance(done, Classified)
        assert (done.served.name, done.routing) == ("lenet5@mnist", None)
        prediction = done.prediction
        assert (prediction.indices, prediction.probabilities, prediction.batch_size) == ((7, 8), (0.5, 0.25), 4)
        assert (prediction.decode_s, prediction.queue_s, prediction.forward_s) == (0.1, 0.2, 0.3)
        assert done.total_s > 0


async def test_a_model_that_is_named_again_comes_with_its_crop(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        first = front.classify()
        await first_time(owner)
        await first
        for data in (SMALL, LARGE):
            again = front.classify(data)
            (ask,) = await owner.tells(1)
            assert isinstance(ask, Ask)
            assert ask.crop is not None
            assert (ask.crop.kind, front.used) == (0, 1)
            crop = owner.windows[0].crop(ask.crop.slot, MNIST)
            assert (crop == picture_to_crop(data, MNIST, max_pixels=80_000_000)).all()
            owner.send(answered(ask.id, kind=0))
            assert isinstance(await again, Classified)
        # The owner may want another kind by now, which it has the front decode; and the next time that one comes.
        again = front.classify(LARGE)
        (ask,) = await owner.tells(1)
        owner.send(Kind(1, IMAGENET.to_json(), 80_000_000), Decode(ask.id, 1))
        (cropped,) = await owner.tells(1)
        assert isinstance(cropped, Cropped)
        assert (cropped.kind, front.used) == (1, 2)
        owner.send(answered(ask.id, kind=1))
        await again
        last = front.classify(LARGE)
        (ask,) = await owner.tells(1)
        assert isinstance(ask, Ask)
        assert ask.crop is not None
        assert ask.crop.kind == 1
        owner.send(answered(ask.id))
        await last


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(labels="mnist"),
        Query(model="lenet5", latency_ms=1000),
        Query(model="lenet5", memory_mb=1000),
        Query(model="lenet5", labels="mnist"),
        Query(model="lenet5@mnist"),
        Query(model="lenet5", k=3),
    ],
)
async def test_only_what_was_named_alike_comes_with_its_crop(tmp_path: Path, query: Query) -> None:
    async with pair(tmp_path) as (front, owner):
        first = front.classify()
        await first_time(owner)
        await first
        other = front.classify(query=query)
        (ask,) = await owner.tells(1)
        assert isinstance(ask, Ask)
        # How many labels are wanted changes nothing.
        assert (ask.crop is not None) is (query.k == 3)
        assert Query.model_validate_json(ask.query) == query
        owner.send(answered(ask.id))
        await other


async def test_a_name_stands_for_what_answered_last(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        asking = front.classifier.begin(BY_NAME, 0.0)
        assert asking.named is None
        first = front.classify()
        await first_time(owner)
        await first
        assert asking.named == "lenet5"
        assert front.classifier.begin(Query(), 0.0).named is None
        assert front.classifier.begin(Query(model="lenet5", labels="mnist"), 0.0).named is None


async def test_names_are_forgotten_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_NAMES", 3)
    async with pair(tmp_path) as (front, owner):
        owner.answers = lambda message: [LENET, answered(message.id)] if isinstance(message, Ask) else []
        for number in range(10):
            await front.classify(query=Query(model=f"ensemble:{number}"))
            assert f"ensemble:{number}" in {name for name, _ in front.classifier.names}
            assert len(front.classifier.names) <= 3


async def test_why_a_network_was_chosen_and_what_members_took_are_told(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        considered = [{"model": "vgg16", "rejected": "latency", "predicted_ms": 310.0, "footprint_mb": 780.0}]
        both = Described(1, "ensemble:a,b", "ensemble:a@x,b@x", "x", "average of 2", True, None, [LENET, LENET])
        owner.answers = lambda message: (
            [
                both,
                Answered(message.id, 1, [3], [1.0], TIMES, Why("fits", 3.5, considered), [MemberTimes(TIMES, 1.5)] * 2),
            ]
            if isinstance(message, Ask)
            else []
        )
        done = await front.classify(query=Query())
        assert isinstance(done, Classified)
        assert done.routing is not None
        assert done.routing.model_dump() == {"reason": "fits", "predicted_ms": 3.5, "considered": considered}
        assert isinstance(done.prediction, Average)
        assert [(member.prediction.forward_s, member.total_s) for member in done.prediction.members] == [(0.3, 1.5)] * 2
        assert [member.name for member in done.served.members] == ["lenet5@mnist"] * 2  # type: ignore[attr-defined]


async def test_a_picture_that_cannot_be_decoded_fails_alone(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        first = front.classify(b"text")
        (ask,) = await owner.tells(1)
        owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(ask.id, 0))
        (undecoded,) = await owner.tells(1)
        assert isinstance(undecoded, Undecoded)
        assert (undecoded.kind, undecoded.failure.slug) == (0, "undecodable")
        owner.send(undecoded.failure)
        failure = await first
        assert isinstance(failure, Failure)
        assert failure.slug == "undecodable"
        again = front.classify()
        (ask,) = await owner.tells(1)
        owner.send(Decode(ask.id, 0))
        await owner.tells(1)
        owner.send(LENET, answered(ask.id, kind=0))
        await again
        # Now that its kind is known, the owner is not even asked.
        failure = await front.classify(b"text")
        assert isinstance(failure, Failure)
        assert (failure.slug, failure.model) == ("undecodable", "lenet5")
        assert owner.told == []


async def test_the_owners_limit_on_pixels_holds(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        classifying = front.classify(LARGE)
        (ask,) = await owner.tells(1)
        owner.send(Kind(0, MNIST.to_json(), 300 * 300 - 1), Decode(ask.id, 0))
        (undecoded,) = await owner.tells(1)
        assert isinstance(undecoded, Undecoded)
        assert undecoded.failure.slug == "too-many-pixels"
        owner.send(undecoded.failure)
        await classifying


@pytest.mark.parametrize("whole", [True, False])
async def test_an_error_of_the_query_is_raised_and_one_of_the_picture_returned(tmp_path: Path, whole: bool) -> None:
    async with pair(tmp_path) as (front, owner):
        classifying = front.classify()
        (ask,) = await owner.tells(1)
        owner.send(Failed(ask.id, "unknown-model", "a text", {"known": ["a"]}, "x", whole))
        expected = Failure("unknown-model", "a text", {"known": ["a"]}, "x")
        if whole:
            with pytest.raises(FailedElsewhereError) as raised:
                await classifying
            assert raised.value.failure == expected
        else:
            assert await classifying == expected


async def test_a_front_without_a_slot_is_overloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops.Slots.__init__, "__defaults__", (2,))
    async with pair(tmp_path) as (front, owner):
        first = front.classify()
        await first_time(owner)
        await first
        running = [front.classify() for _ in range(2)]
        asks = await owner.tells(2)
        refused = await front.classify()
        assert isinstance(refused, Failure)
        assert (refused.slug, refused.extras) == ("overloaded", {"retry_after_ms": 1000.0})
        for ask in asks:
            owner.send(answered(ask.id, kind=0))
        await asyncio.gather(*running)
        assert front.used == 0


async def test_a_caller_who_goes_frees_the_slot_and_is_told_to_the_owner(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        first = front.classify()
        await first_time(owner)
        await first
        classifying = front.classify()
        (ask,) = await owner.tells(1)
        assert front.used == 1
        classifying.cancel()
        assert await owner.tells(1) == [Cancel(ask.id)]
        assert front.used == 0


async def test_a_caller_who_goes_while_the_picture_is_decoded_leaves_no_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldDecoding(monkeypatch)
    async with pair(tmp_path) as (front, owner):
        classifying = front.classify(LARGE)
        (ask,) = await owner.tells(1)
        owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(ask.id, 0))
        assert await asyncio.to_thread(held.began.wait, 10)
        classifying.cancel()
        assert await owner.tells(1) == [Cancel(ask.id)]
        held.open.set()
        await asyncio.sleep(0.02)
        assert (front.used, owner.told) == (0, [])


async def test_a_crop_lies_in_the_memory_of_the_owner_that_is_asked(tmp_path: Path) -> None:
    async with raw_owner(tmp_path / "0.sock", 4096) as small, side(tmp_path) as front:
        await asyncio.wait_for(front.owners.wait(), 10)
        async with raw_owner(tmp_path / "1.sock", 4096 * 60) as large:
            await soon(lambda: len(front.owners._owners) == 2)
            classifying = [front.classify(picture(value)) for value in (3, 5)]
            for owner in (small, large):
                (ask,) = await owner.tells(1)
                owner.send(Kind(0, MNIST.to_json(), 80_000_000), Decode(ask.id, 0))
                (cropped,) = await owner.tells(1)
                assert isinstance(cropped, Cropped)
                # The first was sent to one owner and the second to the other, whichever that was.
                assert owner.windows[0].crop(cropped.slot, MNIST).max() in (3, 5)
                owner.send(LENET, answered(ask.id))
            await asyncio.gather(*classifying)
            assert [owner.memory.used for owner in front.owners._owners.values()] == [0, 0]


async def test_what_a_name_wants_serves_every_owner_that_has_said_so(tmp_path: Path) -> None:
    async with raw_owner(tmp_path / "0.sock") as one, raw_owner(tmp_path / "1.sock") as other, side(tmp_path) as front:
        await soon(lambda: len(front.owners._owners) == 2)
        first = [front.classify() for _ in range(2)]
        for owner, number in ((one, 0), (other, 6)):
            (ask,) = await owner.tells(1)
            owner.send(Kind(number, MNIST.to_json(), 80_000_000), Decode(ask.id, number))
            await owner.tells(1)
            owner.send(LENET, answered(ask.id, kind=number))
        await asyncio.gather(*first)
        again = [front.classify() for _ in range(2)]
        for owner, number in ((one, 0), (other, 6)):
            (ask,) = await owner.tells(1)
            assert isinstance(ask, Ask)
            assert ask.crop is not None
            assert ask.crop.kind == number
            owner.send(answered(ask.id))
        await asyncio.gather(*again)


@pytest.mark.parametrize(("default_ms", "query"), [(20, Query()), (60_000, Query(latency_ms=20))])
async def test_an_owner_that_never_answers_is_not_waited_for_beyond_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_ms: float, query: Query
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.02)
    async with pair(tmp_path, default_latency_ms=default_ms) as (front, owner):
        late = await asyncio.wait_for(front.classify(query=query), 10)
        assert isinstance(late, Failure)
        assert late.slug == DEADLINE_MISSED
        (ask, cancel) = await owner.tells(2)
        assert cancel == Cancel(ask.id)
        # Its answer comes too late, and is nobody's.
        owner.send(LENET, answered(ask.id))
        owner.answers = lambda message: [answered(message.id)] if isinstance(message, Ask) else []
        monkeypatch.setattr(module, "_GRACE_S", 60)
        assert isinstance(await front.classify(), Classified)


async def test_the_owner_has_a_moment_longer_than_the_deadline_to_say_what_was_in_the_way(tmp_path: Path) -> None:
    async with pair(tmp_path) as (front, owner):
        classifying = front.classify(query=Query(latency_ms=1))
        (ask,) = await owner.tells(1)
        await asyncio.sleep(0.02)
        owner.send(Failed(ask.id, DEADLINE_MISSED, "the queue was too long", {}))
        late = await classifying
        assert isinstance(late, Failure)
        assert late.detail == "the queue was too long"
