"""A device owner, over a real socket, with fronts that say what a test wants: every message of a picture's way, and
what is left when a front goes."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import stat
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.checkpoints.catalogue import Catalogue
from models.images.preprocess import Preprocess
from models.networks.variants import UnknownModelError
from service.domain.classified import Asking
from service.domain.prediction import Limits
from service.domain.query import Query
from service.link import sockets
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
    Kind,
    Reply,
    Undecoded,
)
from service.runtime import owner as module
from service.runtime.owner import Duties, owning
from tests.cards import put
from tests.fakes import Fakes
from tests.fronting import RawFront, owner_of, raw_front
from tests.left_over import mappings, no_loop_errors, nothing_left
from tests.profiles import profile
from tests.spans import traced
from tests.waiting import soon

LENET = Catalogue().find("lenet5@mnist").preprocess
BY_NAME = b'{"model":"lenet5"}'
PAIR = ("googlenet@cifar10", "inception_v2@cifar10")


@pytest.fixture(autouse=True)
async def all_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    with nothing_left(caplog), no_loop_errors():
        yield


@pytest.fixture
async def path(fakes: Fakes, tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of an owner that serves LeNet-5."""
    async with owner_of(fakes, tmp_path / "0.sock"):
        yield tmp_path / "0.sock"


def ask(number: int, query: bytes = BY_NAME, crop: Cropped | None = None, traceparent: str | None = None) -> Ask:
    return Ask(number, query, time.monotonic(), 300, traceparent, crop)


def only(kind: type[FromOwner], told: list[FromOwner]) -> list[Any]:
    return [message for message in told if isinstance(message, kind)]


async def classify(front: RawFront, number: int, value: int = 7) -> list[FromOwner]:
    """Has a dark crop classified by LeNet-5, as a front that knows nothing does; returns all that was told."""
    front.send(ask(number))
    told: list[FromOwner] = []
    while not told or not isinstance(told[-1], Answered | Failed):
        (message,) = await front.tells(1)
        told.append(message)
        if isinstance(message, Decode):
            front.send(Cropped(message.id, message.kind, front.put(value, LENET), 0.25))
    return told


async def test_the_whole_way_of_a_picture(path: Path) -> None:
    async with raw_front(path) as front:
        front.send(ask(1))
        kind, decode = await front.tells(2)
        assert kind == Kind(0, LENET.to_json() | {"mean": list(LENET.mean), "std": list(LENET.std)}, 80_000_000)
        assert decode == Decode(1, 0)
        assert Preprocess.from_json(kind.preprocess) == LENET
        front.send(Cropped(1, 0, front.put(7, LENET), 0.25))
        described, answered = await front.tells(2)
        assert isinstance(described, Described)
        assert isinstance(answered, Answered)
        assert (described.name, described.labels, described.trained, described.members) == (
            "lenet5@mnist",
            "mnist",
            True,
            [],
        )
        assert (answered.id, answered.served, answered.kind) == (1, described.number, 0)
        assert answered.indices[:3] == [7, 8, 9]
        assert answered.probabilities[:3] == [0.5, 0.25, 0.125]
        assert (answered.times.decode_s, answered.times.batch_size, answered.why, answered.members) == (
            0.25,
            1,
            None,
            None,
        )


async def test_a_picture_that_comes_with_its_crop_is_answered_with_one_message(path: Path) -> None:
    async with raw_front(path) as front:
        await classify(front, 1)
        slot = front.put(4, LENET)
        front.send(ask(2, crop=Cropped(2, 0, slot, 0.5)))
        (answered,) = await front.tells(1)
        assert isinstance(answered, Answered)
        assert (answered.id, answered.indices[0], answered.times.decode_s) == (2, 4, 0.5)
        # A crop of a kind that is not wanted is no help, and no harm.
        front.send(ask(3, crop=Cropped(3, 9, slot, 0.5)))
        assert await front.tells(1) == [Decode(3, 0)]


async def test_each_front_is_told_everything_once(path: Path) -> None:
    async with raw_front(path) as first, raw_front(path) as second:
        for front in (first, second):
            assert [type(message) for message in await classify(front, 1)] == [Kind, Decode, Described, Answered]
            assert [type(message) for message in await classify(front, 2)] == [Decode, Answered]


async def test_the_same_ids_of_two_fronts_are_different_pictures(path: Path) -> None:
    async with raw_front(path) as first, raw_front(path) as second:
        (one, other) = await asyncio.gather(classify(first, 1, 3), classify(second, 1, 5))
        assert [only(Answered, told)[0].indices[0] for told in (one, other)] == [3, 5]


async def test_a_failure_of_the_front_is_the_pictures(path: Path) -> None:
    async with raw_front(path) as front:
        front.send(ask(1))
        await front.tells(2)
        front.send(Undecoded(1, 0, Failed(1, "undecodable", "text of the front", {"x": 1})))
        assert await front.tells(1) == [Failed(1, "undecodable", "text of the front", {"x": 1}, "lenet5", False)]
        # It is no failure of anything else.
        assert isinstance((await classify(front, 2))[-1], Answered)


@pytest.mark.parametrize(
    ("query", "slug"),
    [
        (b'{"model":"nonsense"}', "unknown-model"),
        (b'{"model":"vgg16"}', "weights-missing"),
        (b'{"k":99}', "internal"),
        (b"nonsense", "internal"),
        (b"", "internal"),
    ],
)
async def test_an_error_of_the_query_fails_the_whole_request(path: Path, query: bytes, slug: str) -> None:
    async with raw_front(path) as front:
        front.send(ask(1, query))
        (failed,) = await front.tells(1)
        assert isinstance(failed, Failed)
        assert (failed.id, failed.slug, failed.whole) == (1, slug, True)


async def test_why_a_network_was_chosen_goes_with_the_answer(fakes: Fakes, tmp_path: Path) -> None:
    fakes.profiles = [profile(forward_ms=20)]
    async with owner_of(fakes, tmp_path / "0.sock"), raw_front(tmp_path / "0.sock") as front:
        front.send(ask(1, b'{"labels":"mnist"}'))
        _, decode = await front.tells(2)
        assert isinstance(decode, Decode)
        front.send(Cropped(1, decode.kind, front.put(7, LENET), 0.001))
        _, answered = await front.tells(2)
        assert isinstance(answered, Answered)
        assert answered.why is not None
        assert answered.why.predicted_ms is not None
        assert answered.why.predicted_ms >= 20
        # The next picture may be another network's.
        assert answered.kind is None


async def test_an_ensemble_wants_each_kind_once(fakes: Fakes, tmp_path: Path) -> None:
    for name in PAIR:
        put(tmp_path, *name.split("@"))
    fakes.loadable |= set(PAIR)
    kinds = {Catalogue(tmp_path).find(name).preprocess for name in PAIR}
    assert len(kinds) == 1
    async with owner_of(fakes, tmp_path / "0.sock"), raw_front(tmp_path / "0.sock") as front:
        front.send(ask(1, b'{"model":"ensemble:googlenet,inception_v2"}'))
        kind, decode = await front.tells(2)
        assert (type(kind), decode) == (Kind, Decode(1, 0))
        await asyncio.sleep(0.01)
        assert front.told == []
        front.send(Cropped(1, 0, front.put(7, *kinds), 0.25))
        described, answered = await front.tells(2)
        assert isinstance(described, Described)
        assert isinstance(answered, Answered)
        assert [member.name for member in described.members] == list(PAIR)
        assert (answered.kind, answered.indices[0]) == (None, 7)
        assert answered.members is not None
        assert [member.times.decode_s for member in answered.members] == [0.25, 0.25]


async def test_numbers_of_checkpoints_are_given_again_when_too_many_were_described(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_DESCRIBED", 2)
    names = ["lenet5@mnist", "lenet5@cifar10", "googlenet@cifar10"]
    for name in names[1:]:
        put(tmp_path, *name.split("@"))
    fakes.loadable |= set(names)
    kinds = {name: Catalogue(tmp_path).find(name).preprocess for name in names}
    said: list[tuple[str, int]] = []
    meant: dict[int, str] = {}
    async with owner_of(fakes, tmp_path / "0.sock"), raw_front(tmp_path / "0.sock") as front:
        for number, name in enumerate([*names, names[2], names[0], names[2]]):
            front.send(ask(number, b'{"model":"%s"}' % name.encode()))
            while True:
                (message,) = await front.tells(1)
                if isinstance(message, Decode):
                    front.send(Cropped(number, message.kind, front.put(7, kinds[name]), 0.0))
                elif isinstance(message, Described):
                    said.append((message.name, message.number))
                    meant[message.number] = message.name
                elif isinstance(message, Answered):
                    assert meant[message.served] == name
                    break
    # The one that was described first gives its number up.
    assert said == [(names[0], 0), (names[1], 1), (names[2], 0), (names[0], 1)]


async def test_a_picture_that_is_cancelled_frees_its_place(fakes: Fakes, tmp_path: Path) -> None:
    fakes.limits = Limits(max_batch_size=1, max_queue=1)
    async with owner_of(fakes, tmp_path / "0.sock"), raw_front(tmp_path / "0.sock") as front:
        await classify(front, 1)
        crop = front.put(7, LENET)
        with fakes.held("lenet5@mnist") as began:
            for number in (2, 3, 4):
                front.send(ask(number, crop=Cropped(number, 0, crop, 0.0)))
                if number == 2:
                    assert await asyncio.to_thread(began.wait, 10)
            (refused,) = await front.tells(1)
            assert isinstance(refused, Failed)
            assert (refused.id, refused.slug, refused.whole) == (4, "overloaded", False)
            front.send(Cancel(3))
            await soon(lambda: fakes.queued("lenet5@mnist") == 0)
            front.send(ask(5, crop=Cropped(5, 0, crop, 0.0)))
            await soon(lambda: fakes.queued("lenet5@mnist") == 1)
        assert sorted(message.id for message in only(Answered, await front.tells(2))) == [2, 5]


async def test_a_picture_is_cancelled_while_its_crop_is_waited_for(path: Path, fakes: Fakes) -> None:
    async with raw_front(path) as front:
        front.send(ask(1))
        await front.tells(2)
        assert fakes.queued("lenet5@mnist") == 1
        front.send(Cancel(1), Cancel(1))
        await soon(lambda: fakes.queued("lenet5@mnist") == 0)
        # The crop comes too late, and nobody knows the picture any more.
        front.send(Cropped(1, 0, front.put(7, LENET), 0.0), Undecoded(1, 0, Failed(1, "undecodable", "", {})))
        assert isinstance((await classify(front, 2))[-1], Answered)


async def test_a_cancel_may_come_with_its_picture(path: Path, fakes: Fakes) -> None:
    async with raw_front(path) as front:
        front.send(ask(1), Cancel(1))
        assert isinstance((await classify(front, 2))[-1], Answered)
        assert fakes.queued("lenet5@mnist") == 0


async def test_a_front_that_goes_takes_its_pictures_along_and_no_others(fakes: Fakes, tmp_path: Path) -> None:
    fakes.limits = Limits(max_batch_size=1)
    async with owner_of(fakes, tmp_path / "0.sock"), raw_front(tmp_path / "0.sock") as stays:
        await classify(stays, 1)
        goes = await RawFront.of(tmp_path / "0.sock")
        await classify(goes, 1)
        with fakes.held("lenet5@mnist") as began:
            crop = stays.put(7, LENET)
            stays.send(ask(2, crop=Cropped(2, 0, crop, 0.0)))
            assert await asyncio.to_thread(began.wait, 10)
            crop_of_goes = goes.put(3, LENET)
            for number in range(10, 15):
                goes.send(ask(number, crop=Cropped(number, 0, crop_of_goes, 0.0)))
            goes.send(ask(15))  # it waits for its crop
            stays.send(ask(3, crop=Cropped(3, 0, crop, 0.0)))
            await soon(lambda: fakes.queued("lenet5@mnist") == 7)
            await goes.end()
            await soon(lambda: fakes.queued("lenet5@mnist") == 1)
        assert [message.id for message in only(Answered, await stays.tells(2))] == [2, 3]
        # Warm-up apart, every batch was of one picture: those of the front that went were never run.
        assert fakes.engines["lenet5@mnist"].batches == [1] * 4


async def test_the_memory_of_a_front_that_goes_is_given_back_at_once(path: Path) -> None:
    gc.collect()
    before = mappings()
    front = await RawFront.of(path)
    await classify(front, 1)
    assert mappings() == before + 2
    gc.disable()
    try:
        await front.end()
        await soon(lambda: mappings() == before)
    finally:
        gc.enable()


async def test_a_front_goes_in_the_middle_of_a_forward_pass(fakes: Fakes, tmp_path: Path) -> None:
    async with owner_of(fakes, tmp_path / "0.sock"), raw_front(tmp_path / "0.sock") as stays:
        goes = await RawFront.of(tmp_path / "0.sock")
        await classify(goes, 1)
        with fakes.held("lenet5@mnist") as began:
            goes.send(ask(2, crop=Cropped(2, 0, goes.put(7, LENET), 0.0)))
            assert await asyncio.to_thread(began.wait, 10)
            await goes.end()
            await asyncio.sleep(0.01)
        assert isinstance((await classify(stays, 1))[-1], Answered)


WRONG = [
    ("the same id twice", [ask(1), ask(1)]),
    ("a call under a picture's id", [ask(1), Call(1, "GET", "/healthz", b"", [], None)]),
    ("an unknown problem", [ask(1), Undecoded(1, 0, Failed(1, "nonsense", "", {}))]),
    ("an owner's message", [Decode(1, 1)]),
]


@pytest.mark.parametrize("messages", [row[1] for row in WRONG], ids=[row[0] for row in WRONG])
async def test_a_front_that_breaks_the_protocol_is_dropped_and_harms_no_other(
    path: Path, fakes: Fakes, messages: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_front(path) as wrong, raw_front(path) as right:
        wrong.send(*messages)
        await soon(lambda: wrong.lost)
        await soon(lambda: "lenet5@mnist" not in fakes.placements[-1]._predictors or not fakes.queued("lenet5@mnist"))
        assert isinstance((await classify(right, 1))[-1], Answered)
    assert "a connection between front and device owner is closed" in caplog.text


@pytest.mark.parametrize("slot", [-1, 1024, 2**63 - 1])
async def test_a_slot_that_does_not_exist_fails_the_picture_alone(
    path: Path, slot: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_front(path) as front:
        await classify(front, 1)
        front.send(ask(2, crop=Cropped(2, 0, slot, 0.0)), ask(3))
        (failed, decode) = await front.tells(2)
        assert isinstance(failed, Failed)
        assert (failed.id, failed.slug) == (2, "internal")
        front.send(Cropped(3, 0, slot, 0.0))
        (failed,) = await front.tells(1)
        assert isinstance(failed, Failed)
        assert (failed.id, failed.slug, decode) == (3, "internal", Decode(3, 0))
        assert isinstance((await classify(front, 4))[-1], Answered)
    assert f"slot {slot} of 1024" in caplog.text


async def test_other_requests_are_answered_by_the_application(path: Path) -> None:
    async with raw_front(path) as front:
        headers = [(b"host", b"localhost")]
        front.send(
            Call(1, "GET", "/models/lenet5", b"", headers, ("127.0.0.1", 1)), Call(2, "GET", "/x", b"", [], None)
        )
        replies = {reply.id: reply for reply in only(Reply, await front.tells(2))}
        assert (replies[1].status, b'"lenet5@mnist"' in replies[1].body) == (200, True)
        assert (replies[2].status, dict(replies[2].headers)[b"content-type"]) == (404, b"application/problem+json")


@pytest.mark.parametrize("goes", ["the caller", "the front"])
async def test_a_request_whose_caller_goes_is_cancelled(tmp_path: Path, goes: str) -> None:
    events: list[str] = []

    async def others(_scope: Any, _receive: Any, _send: Any) -> None:
        events.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    duties = Duties(None, others, 1, 1)  # type: ignore[arg-type]  # nothing is classified
    async with owning(tmp_path / "0.sock", duties):
        front = await RawFront.of(tmp_path / "0.sock")
        front.send(Call(1, "GET", "/", b"", [], None))
        await soon(lambda: events == ["began"])
        if goes == "the caller":
            front.send(Cancel(1))
            await soon(lambda: events == ["began", "cancelled"])
        await front.end()
        await soon(lambda: events == ["began", "cancelled"])


async def test_the_spans_of_a_picture_belong_to_the_fronts_span(path: Path) -> None:
    with traced() as spans:
        async with raw_front(path) as front:
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            await classify(front, 1)
            assert len(spans) == 0
            front.send(ask(2, crop=Cropped(2, 0, front.put(7, LENET), 0.001), traceparent=parent))
            await front.tells(1)
            front.send(ask(3, crop=Cropped(3, 0, front.put(7, LENET), 0.001), traceparent="nonsense"))
            await front.tells(1)
        found = spans.named("decode") + spans.named("queue") + spans.named("forward")
        assert len(found) == 3
        # The span of a forward pass is its batch's; a picture's spans are the front's children.
        assert {f"{span.context.trace_id:032x}" for span in found} == {"0af7651916cd43dd8448eb211c80319c"}
        assert f"{spans.named('decode')[0].parent.span_id:016x}" == "b7ad6b7169203331"


async def test_the_socket_is_there_while_the_owner_is(fakes: Fakes, tmp_path: Path) -> None:
    path = tmp_path / "0.sock"
    async with owner_of(fakes, path):
        assert stat.S_ISSOCK(path.stat().st_mode)
        front = await RawFront.of(path)
    assert not path.exists()
    assert not path.with_name("0.sock~").exists()
    await soon(lambda: front.lost)
    await front.end()


async def test_no_task_is_left_when_an_owner_ends_while_its_fronts_ask(fakes: Fakes, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with owner_of(fakes, tmp_path / "0.sock"):
        fronts = [await RawFront.of(tmp_path / "0.sock") for _ in range(3)]
        # One that never introduces itself.
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(str(tmp_path / "0.sock"))
        for front in fronts:
            front.send(ask(1), Call(2, "GET", "/models", b"", [], None))
        await asyncio.sleep(0.01)
    await soon(lambda: asyncio.all_tasks() == before)
    for front in fronts:
        await front.end()
    with silent:
        silent.setblocking(True)
        with suppress(OSError):
            # The welcome, and then the end.
            assert len(silent.recv(100)) == 10
            assert silent.recv(100) == b""


async def test_fronts_that_introduce_themselves_wrongly_or_never_keep_no_other_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sockets, "_WITHIN_S", 0.2)
    strangers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for stranger in strangers:
        stranger.connect(str(path))
    strangers[0].send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    strangers[1].close()
    async with raw_front(path) as front:
        assert isinstance((await classify(front, 1))[-1], Answered)
        await soon(lambda: len(caplog.records) >= 3)
    for stranger in strangers:
        stranger.close()
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "it took too long" in caplog.text


async def test_an_owner_accepts_fronts_again_after_a_moment_without_files(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_ACCEPT_AGAIN_S", 0.01)
    loop, left = asyncio.get_running_loop(), 2
    accept = loop.sock_accept

    async def refused(listener: socket.socket) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise OSError(24, "Too many open files")
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", refused)
    for number in (1, 2):
        # The first is accepted by the call that began before the change.
        async with raw_front(path) as front:
            assert isinstance((await classify(front, number))[-1], Answered)
    assert caplog.text.count("Too many open files") == 2


async def test_who_asks_is_told_to_whatever_classifies(tmp_path: Path) -> None:
    callers: list[str] = []

    class Nothing:
        def begin(self, _query: Query, _arrived: float, caller: str) -> Asking:
            callers.append(caller)
            raise UnknownModelError("x")

    async with (
        owning(tmp_path / "0.sock", Duties(Nothing(), Fakes, 1, 1)),  # type: ignore[arg-type]
        raw_front(tmp_path / "0.sock") as front,
    ):
        front.send(msgspec.structs.replace(ask(1), caller="192.0.2.7"))
        (failed,) = await front.tells(1)
        assert isinstance(failed, Failed)
    assert callers == ["192.0.2.7"]
