"""The decoding threads: which pictures wait for which, and how much memory they hold together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from models.images.cost import UNBOUNDED, Price, Work
from models.images.errors import TooMuchWorkError, UndecodableError
from models.images.preprocess import PRESETS
from service.inference import decoders as module
from service.inference.decoders import Decoders, Job, outrun_s
from tests.picture_files import many_scans
from tests.pictures import photo, picture

LENET = PRESETS["mnist"]
LIMIT = 80_000_000
CHEAP = Work(Price(0.001, 1_000), dear=False)
#: What the first test below says of it keeps it from outrunning its price while a test runs.
SLOW = Work(Price(1000.0, 1_000), dear=False)


def dear(held: int, seconds: float = 1000.0) -> Work:
    return Work(Price(seconds, held), dear=True)


class Held:
    """Decodes that wait until the test opens them, by the bytes of the picture."""

    def __init__(self) -> None:
        self.running: list[bytes] = []
        self.gates: dict[bytes, threading.Event] = {}

    def decode(self, image: bytes, *_: Any) -> Any:
        self.running.append(image)
        gate = self.gates.get(image)
        if gate is not None:
            assert gate.wait(10)
        self.running.remove(image)
        return image

    def gate(self, image: bytes) -> bytes:
        self.gates[image] = threading.Event()
        return image

    def open(self, image: bytes) -> None:
        self.gates[image].set()

    def open_all(self) -> None:
        for gate in self.gates.values():
            gate.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held()
    monkeypatch.setattr(module, "decode", made.decode)
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.002)
    yield made
    made.open_all()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - threads change it
            await asyncio.sleep(0.001)


def begun(decoders: Decoders, image: bytes, work: Work) -> asyncio.Task[Any]:
    return asyncio.ensure_future(decoders.decode(image, LENET, LIMIT, work))


async def decodes_at_once(decoders: Decoders, held: Held, work: Work, most: int) -> None:
    """Checks that so many pictures are decoded at the same time and no more; and all of them in the end."""
    tasks = [begun(decoders, held.gate(b"%d" % n), work) for n in range(most + 2)]
    await until(lambda: len(held.running) == most)
    await asyncio.sleep(0.02)
    assert len(held.running) == most
    held.open_all()
    await asyncio.gather(*tasks)
    decoders.close()


async def test_a_picture_is_decoded_and_one_that_is_refused_frees_its_place() -> None:
    decoders = Decoders(1, Price(5, 10**9))
    for _ in range(8):
        assert (await decoders.decode(picture(5), LENET, LIMIT)).shape == (32, 32, 1)
        with pytest.raises(UndecodableError):
            await decoders.decode(photo()[:300], LENET, LIMIT)
    decoders.close()


@pytest.mark.parametrize("most", [Price(0.01, 10**9), Price(5, 1_000_000)], ids=["time", "memory"])
async def test_what_takes_more_than_the_limit_is_refused_before_it_is_decoded(most: Price) -> None:
    from PIL import Image

    decoders = Decoders(1, most)
    data = many_scans(Image.new("L", (2000, 2000), 100), 5)
    with pytest.raises(TooMuchWorkError, match=r"progressive JPEG of 2,000 x 2,000 pixels.*the limit is"):
        await decoders.decode(data, LENET, LIMIT)
    assert (await Decoders(1, UNBOUNDED).decode(data, LENET, LIMIT)).shape == (32, 32, 1)


async def test_dear_pictures_leave_the_threads_of_ordinary_ones_alone(held: Held) -> None:
    decoders = Decoders(2, Price(5, 10**9))
    tasks = [begun(decoders, held.gate(b"dear%d" % n), dear(1)) for n in range(4)]
    await until(lambda: held.running == [b"dear0"])
    for n in range(10):
        assert await begun(decoders, b"ordinary%d" % n, CHEAP) == b"ordinary%d" % n
    for n, task in enumerate(tasks):
        await until(lambda n=n: held.running == [b"dear%d" % n])  # type: ignore[misc]
        held.open(b"dear%d" % n)
        await task
    decoders.close()


async def test_ordinary_pictures_are_decoded_as_many_at_once_as_there_are_threads(held: Held) -> None:
    decoders = Decoders(3)
    tasks = [begun(decoders, held.gate(b"%d" % n), SLOW) for n in range(5)]
    await until(lambda: len(held.running) == 3)
    await asyncio.sleep(0.01)
    assert sorted(held.running) == [b"0", b"1", b"2"]
    held.open(b"1")
    await until(lambda: sorted(held.running) == [b"0", b"2", b"3"])
    held.open_all()
    await asyncio.gather(*tasks)
    decoders.close()


async def test_dear_pictures_wait_for_memory_in_order(held: Held) -> None:
    decoders = Decoders(8, Price(5, 100))
    tasks = [begun(decoders, held.gate(name), dear(size)) for name, size in ((b"a", 60), (b"b", 30), (b"c", 50))]
    tasks.append(begun(decoders, held.gate(b"d"), dear(5)))
    await until(lambda: sorted(held.running) == [b"a", b"b"])
    await asyncio.sleep(0.01)
    # The fourth would fit, but the third was first.
    assert sorted(held.running) == [b"a", b"b"]
    held.open(b"a")
    await until(lambda: sorted(held.running) == [b"b", b"c", b"d"])
    held.open_all()
    await asyncio.gather(*tasks)
    decoders.close()


async def test_a_picture_that_needs_more_than_all_memory_goes_alone(held: Held) -> None:
    decoders = Decoders(8, Price(5, 100))
    first = begun(decoders, held.gate(b"a"), dear(1))
    large = begun(decoders, held.gate(b"b"), dear(500))
    await until(lambda: held.running == [b"a"])
    held.open(b"a")
    await until(lambda: held.running == [b"b"])
    last = begun(decoders, b"c", dear(1))
    await asyncio.sleep(0.01)
    assert held.running == [b"b"]
    held.open(b"b")
    assert await asyncio.gather(first, large, last) == [b"a", b"b", b"c"]
    decoders.close()


async def test_a_caller_who_goes_leaves_the_line_and_what_a_thread_holds_stays_held(held: Held) -> None:
    decoders = Decoders(8, Price(5, 100))
    running = begun(decoders, held.gate(b"a"), dear(60))
    waiting = begun(decoders, b"b", dear(60))
    behind = begun(decoders, b"c", dear(40))
    await until(lambda: held.running == [b"a"])
    waiting.cancel()
    assert await behind == b"c"
    running.cancel()
    later = begun(decoders, b"d", dear(60))
    await asyncio.sleep(0.01)
    # Nobody waits for it any more, but it is still being decoded.
    assert held.running == [b"a"]
    assert not later.done()
    held.open(b"a")
    assert await later == b"d"
    decoders.close()


async def test_a_decode_that_outruns_its_price_lets_others_by(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAR_S", 0.01)
    decoders = Decoders(1)
    stuck = begun(decoders, held.gate(b"stuck"), Work(Price(0.001, 1), dear=False))
    await until(lambda: held.running == [b"stuck"])
    assert await begun(decoders, b"next", CHEAP) == b"next"
    held.open(b"stuck")
    assert await stuck == b"stuck"
    # Its place was given away once: there is still one.
    tasks = [begun(decoders, held.gate(b"%d" % n), SLOW) for n in range(2)]
    await until(lambda: held.running == [b"0"])
    await asyncio.sleep(0.01)
    assert held.running == [b"0"]
    held.open(b"0")
    held.open(b"1")
    await asyncio.gather(*tasks)
    decoders.close()


async def test_no_more_than_three_decodes_for_each_thread_may_outrun_their_prices(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FAR_S", 0.001)
    await decodes_at_once(Decoders(1), held, CHEAP, 4)


def test_a_price_is_outrun_after_five_times_as_long_and_never_at_once() -> None:
    assert outrun_s(Work(Price(0.001, 1), dear=False)) == 0.25
    assert outrun_s(Work(Price(2.0, 1), dear=True)) == 10.0


async def test_a_thread_that_is_done_takes_the_next_picture_while_the_event_loop_is_busy(held: Held) -> None:
    decoders = Decoders(1)
    first = begun(decoders, held.gate(b"first"), SLOW)
    others = [begun(decoders, b"%d" % n, SLOW) for n in range(5)]
    last = begun(decoders, held.gate(b"last"), SLOW)
    await until(lambda: held.running == [b"first"])
    held.open(b"first")
    for _ in range(10_000):  # the loop does nothing else meanwhile
        if held.running == [b"last"]:
            break
        time.sleep(0.001)  # noqa: ASYNC251
    assert held.running == [b"last"]
    held.open(b"last")
    await asyncio.gather(first, *others, last)
    decoders.close()


async def test_whoever_waits_when_the_threads_end_is_told(held: Held) -> None:
    decoders = Decoders(1)
    running = begun(decoders, held.gate(b"running"), SLOW)
    waiting = [begun(decoders, b"%d" % n, SLOW) for n in range(2000)]
    await until(lambda: held.running == [b"running"])
    decoders.close()
    held.open(b"running")
    assert await running == b"running"
    async with asyncio.timeout(10):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def test_work_that_is_started_otherwise_has_its_place_in_the_lane_all_the_same() -> None:
    """A simulation has no threads."""

    class Otherwise(Decoders):
        started: ClassVar[list[Job]] = []

        def start(self, job: Job) -> None:
            self.started.append(job)

    decoders, crop = Otherwise(1), object()
    tasks = [asyncio.ensure_future(decoders.run(lambda: crop, dear(1), "")) for _ in range(2)]  # type: ignore[arg-type, return-value]
    await asyncio.sleep(0)
    for task in tasks:
        (job,) = Otherwise.started
        Otherwise.started.clear()
        assert not task.done()
        decoders.done(job, job.decoded())
        assert await task is crop
    assert Otherwise.started == []
    decoders.close()
