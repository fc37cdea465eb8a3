"""The ledger of host memory: what is parked, what goes first, and that it charges for all that is held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.checkpoints.catalogue import Catalogue
from service.engines.fake import FakeEngine
from service.runtime.parking import Parking, Place
from service.runtime.resident import Needs, Resident
from tests.clock import Clock
from tests.sleepers import Host, Sleeper

LENET = Catalogue().find("lenet5@mnist")


async def nothing() -> None:
    pass


class Garage:
    """A ledger of 100 bytes with the host memory that it counts."""

    def __init__(self, thread: ThreadPoolExecutor, limit: int = 100) -> None:
        self.clock = Clock()
        self.parking = Parking(limit, self.clock)
        self.host = Host()
        self._thread = thread
        self.engines: dict[Place, Sleeper] = {}

    def add(self, name: str, size: int, *, uses: int = 0, worth: float = 1.0) -> Place:
        entry = Resident(name, nothing, nothing, lambda: Needs(size, 0), worth=worth)
        for _ in range(uses):
            entry.use(self.clock.now)
        place = self.parking.place(entry, self._thread)
        self.engines[place] = Sleeper(LENET, self.host, size, name)
        return place

    async def park(self, *places: Place) -> None:
        for place in places:
            await place.park(self.engines[place])
            self.check()

    def check(self) -> None:
        """The ledger charges what is held, place by place, and no more than the limit."""
        charged = {self.engines[place].name: place.held for place in self.engines if place.held}
        assert charged == self.host.held
        assert self.parking.held_bytes == sum(charged.values()) <= self.parking.limit_bytes
        assert self.host.most <= self.parking.limit_bytes

    def parked(self) -> list[str]:
        return sorted(self.engines[place].name for place in self.engines if place.parked)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def garage(thread: ThreadPoolExecutor) -> Garage:
    return Garage(thread)


async def test_weights_are_parked_and_woken_once(garage: Garage) -> None:
    a = garage.add("a", 60)
    assert a.waking() is None
    await garage.park(a)
    assert (a.parked, a.held) == (True, 60)
    wake = a.waking()
    assert wake is not None
    # They are charged until they are awake and freed, and nobody else may take them meanwhile.
    assert (a.parked, a.held, a.waking()) == (False, 60, None)
    assert await asyncio.to_thread(wake) is garage.engines[a]
    garage.check()
    assert garage.host.events == ["park a", "wake a", "free a"]
    assert (a.held, garage.host.held) == (0, {})
    await garage.park(a)
    assert a.parked


async def test_the_least_valuable_goes_first_when_the_limit_is_reached(garage: Garage) -> None:
    often, seldom, inaccurate = (
        garage.add("often", 30, uses=9),
        garage.add("seldom", 30, uses=3),
        garage.add("inaccurate", 30, uses=3, worth=0.5),
    )
    await garage.park(often, seldom, inaccurate)
    await garage.park(garage.add("new", 40, uses=9))
    assert garage.parked() == ["new", "often", "seldom"]
    assert garage.host.events[-2:] == ["free inaccurate", "park new"]
    await garage.park(garage.add("newer", 30, uses=9))
    assert garage.parked() == ["new", "newer", "often"]


async def test_as_many_go_as_are_needed_and_no_more(garage: Garage) -> None:
    await garage.park(*(garage.add(name, 30, uses=uses) for name, uses in (("a", 3), ("b", 1), ("c", 2))))
    await garage.park(garage.add("large", 65, uses=90))
    assert garage.parked() == ["a", "large"]


async def test_a_checkpoint_that_is_worth_less_than_the_parked_ones_is_not_parked(garage: Garage) -> None:
    a, b = garage.add("a", 50, uses=3), garage.add("b", 50, uses=2)
    await garage.park(a, b)
    await garage.park(garage.add("unused", 10))
    # Value is by the byte: 4 uses for 100 bytes are less than 2 for 50 and 3 for 50.
    await garage.park(garage.add("large", 100, uses=4))
    # Equals stay where they are: to change them would cost copies and gain nothing.
    await garage.park(garage.add("equal", 50, uses=2))
    assert garage.parked() == ["a", "b"]
    assert "free b" not in garage.host.events


async def test_a_checkpoint_that_is_wanted_keeps_its_place(garage: Garage) -> None:
    a, b = garage.add("a", 50), garage.add("b", 50, uses=2)
    await garage.park(a, b)
    a._resident.waiters.append(asyncio.get_running_loop().create_future())
    await garage.park(garage.add("new", 50, uses=9))
    assert garage.parked() == ["a", "new"]


async def test_value_fades_in_the_garage(garage: Garage) -> None:
    old = garage.add("old", 60, uses=5)
    await garage.park(old)
    garage.clock.now += 600
    await garage.park(garage.add("new", 60, uses=1))
    assert garage.parked() == ["new"]


@pytest.mark.parametrize("limit", [0, 59])
async def test_what_is_larger_than_the_limit_is_not_parked(thread: ThreadPoolExecutor, limit: int) -> None:
    garage = Garage(thread, limit)
    small = garage.add("small", 20)
    await garage.park(small, garage.add("a", 60, uses=9))
    # It must not chase others away in vain.
    assert garage.parked() == (["small"] if limit else [])
    assert garage.host.events == (["park small"] if limit else [])


async def test_an_engine_that_cannot_park_is_left_alone(garage: Garage) -> None:
    a = garage.add("a", 60)
    await a.park(FakeEngine(LENET))
    assert (a.parked, a.held) == (False, 0)


async def test_weights_that_find_no_memory_are_not_charged(garage: Garage, caplog: pytest.LogCaptureFixture) -> None:
    a, b = garage.add("a", 60, uses=1), garage.add("b", 60, uses=9)
    await garage.park(a)
    garage.host.broken.add("park")
    await garage.park(b)
    assert garage.parked() == []
    assert "the weights of b are not kept in host memory: no memory to park b" in caplog.text


async def test_weights_that_cannot_be_woken_are_given_up(garage: Garage) -> None:
    a = garage.add("a", 60)
    await garage.park(a)
    garage.host.broken.add("wake")
    wake = a.waking()
    assert wake is not None
    with pytest.raises(RuntimeError, match="no memory to wake"):
        await asyncio.to_thread(wake)
    garage.check()
    assert (a.parked, a.held, a.waking()) == (False, 0, None)


async def test_closing_gives_the_weights_up_for_good(garage: Garage) -> None:
    a, b = garage.add("a", 40), garage.add("b", 40)
    await garage.park(a, b)
    await a.close()
    await a.close()
    garage.check()
    await garage.park(a)
    assert garage.parked() == ["b"]
    assert garage.host.events == ["park a", "park b", "free a"]


async def test_a_place_that_is_shut_keeps_what_is_there_and_takes_no_more(garage: Garage) -> None:
    a, b = garage.add("a", 40), garage.add("b", 40)
    await garage.park(a)
    for place in (a, b):
        place.shut()
    await garage.park(b)
    assert garage.parked() == ["a"]
    await a.close()
    assert garage.host.held == {}


async def test_closing_waits_for_weights_that_are_being_parked(garage: Garage) -> None:
    a = garage.add("a", 40)
    garage.host.open.clear()
    parking = asyncio.create_task(a.park(garage.engines[a]))
    await asyncio.sleep(0)
    # Charged before they are there.
    assert (a.held, a.parked) == (40, False)
    closing = asyncio.create_task(a.close())
    await asyncio.sleep(0)
    garage.host.open.set()
    await asyncio.gather(parking, closing)
    assert (garage.host.events, a.held) == (["park a", "free a"], 0)
    garage.check()


async def test_weights_that_are_being_woken_are_neither_cleared_nor_closed_away(garage: Garage) -> None:
    a, b = garage.add("a", 60), garage.add("b", 60, uses=9)
    await garage.park(a)
    wake = a.waking()
    assert wake is not None
    await garage.park(b)
    assert garage.host.events == ["park a"]
    await a.close()
    assert await asyncio.to_thread(wake) is garage.engines[a]
    assert garage.host.events == ["park a", "wake a", "free a"]
    assert garage.host.held == {}
