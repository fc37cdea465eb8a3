"""A caller does a few things at once, and keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from collections import Counter

from service.inference.few_at_once import FewAtOnce


class Work:
    """Things that are done until a test ends them."""

    def __init__(self, most: int) -> None:
        self.few = FewAtOnce(most)
        self.doing: Counter[str] = Counter()
        self.done: list[str] = []
        self.may_end: dict[str, asyncio.Event] = {}

    def begin(self, caller: str, name: str) -> asyncio.Task[None]:
        self.may_end[name] = asyncio.Event()
        return asyncio.create_task(self._do(caller, name))

    async def _do(self, caller: str, name: str) -> None:
        async with self.few.of(caller):
            self.doing[caller] += 1
            try:
                await self.may_end[name].wait()
                self.done.append(name)
            finally:
                self.doing[caller] -= 1


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_callers_things_wait_for_each_other_and_not_for_other_callers() -> None:
    work = Work(2)
    tasks = [work.begin("bulk", f"bulk {n}") for n in range(5)]
    tasks.append(work.begin("polite", "polite"))
    await turns()
    assert work.doing == {"bulk": 2, "polite": 1}
    for event in work.may_end.values():
        event.set()
    await asyncio.gather(*tasks)
    assert [name for name in work.done if name != "polite"] == [f"bulk {n}" for n in range(5)]
    assert work.few._doing == work.few._waiting == {}


async def test_a_thing_that_waits_and_is_given_up_takes_nobodys_place() -> None:
    work = Work(1)
    first, second, third = [work.begin("bulk", name) for name in ("first", "second", "third")]
    await turns()
    second.cancel()
    await turns()
    work.may_end["first"].set()
    work.may_end["third"].set()
    await asyncio.gather(first, third)
    assert work.done == ["first", "third"]
    assert work.few._doing == work.few._waiting == {}


async def test_a_place_that_is_passed_on_to_a_thing_that_is_given_up_goes_to_the_next() -> None:
    work = Work(1)
    first, second, third = [work.begin("bulk", name) for name in ("first", "second", "third")]
    await turns()
    work.may_end["first"].set()
    await first
    second.cancel()  # it has the place by now, and has not been told yet
    work.may_end["third"].set()
    await asyncio.wait_for(third, 5)
    assert second.cancelled() or await asyncio.wait({second}) is not None
    assert work.few._doing == work.few._waiting == {}


async def test_an_error_gives_the_place_back() -> None:
    few = FewAtOnce(1)
    for _ in range(3):
        try:
            async with few.of("bulk"):
                raise ValueError("broken")
        except ValueError:
            continue
    assert few._doing == few._waiting == {}
