"""A lane's places go round among callers, and every place and byte comes back."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.inference.lane import Lane

_ALL = 1_000


class Work:
    """Things that have a place until a test ends them."""

    def __init__(self, width: int, most_held: int = _ALL, most_late: int = 0) -> None:
        self.lane = Lane(width, most_held, most_late)
        self.doing: Counter[str] = Counter()
        self.begun: list[str] = []
        self.may_end: dict[str, asyncio.Event] = {}

    def begin(self, caller: str, name: str, held: int = 1) -> asyncio.Task[None]:
        self.may_end[name] = asyncio.Event()
        return asyncio.create_task(self._do(caller, name, held))

    async def _do(self, caller: str, name: str, held: int) -> None:
        await self.lane.enter(held, caller)
        self.begun.append(name)
        self.doing[caller] += 1
        try:
            await self.may_end[name].wait()
        finally:
            self.doing[caller] -= 1
            self.lane.leave(held, caller)

    def all_is_back(self, width: int) -> bool:
        lane = self.lane
        return (lane._free, lane._held, lane._places, lane._waiting) == (width, 0, {}, {})


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_free_place_goes_to_the_caller_with_the_fewest() -> None:
    work = Work(2)
    tasks = [work.begin("bulk", f"bulk {n}") for n in range(5)]
    await turns()
    tasks.append(work.begin("polite", "polite"))
    await turns()
    assert work.begun == ["bulk 0", "bulk 1"]
    work.may_end["bulk 0"].set()
    await turns()
    assert work.begun[2:] == ["polite"]
    for event in work.may_end.values():
        event.set()
    await asyncio.gather(*tasks)
    assert work.begun == ["bulk 0", "bulk 1", "polite", "bulk 2", "bulk 3", "bulk 4"]
    assert work.all_is_back(2)


async def test_callers_with_as_many_take_turns() -> None:
    work = Work(1)
    tasks = [work.begin("first", "held")]
    await turns()
    tasks += [work.begin(caller, f"{caller} {n}") for caller in "abc" for n in range(2)]
    await turns()
    for event in work.may_end.values():
        event.set()
    await asyncio.gather(*tasks)
    assert work.begun[1:] == ["a 0", "b 0", "c 0", "a 1", "b 1", "c 1"]
    assert work.all_is_back(1)


async def test_a_thing_that_waits_and_is_given_up_takes_nobodys_place() -> None:
    work = Work(1)
    first, second, third = [work.begin("bulk", name) for name in ("first", "second", "third")]
    await turns()
    second.cancel()
    await turns()
    work.may_end["first"].set()
    work.may_end["third"].set()
    await asyncio.gather(first, third)
    assert work.begun == ["first", "third"]
    assert work.all_is_back(1)


async def test_a_place_that_is_passed_on_to_a_thing_that_is_given_up_goes_to_the_next() -> None:
    lane = Lane(1, _ALL, 0)
    await lane.enter(1, "a")
    second, third = asyncio.create_task(lane.enter(1, "a")), asyncio.create_task(lane.enter(1, "a"))
    await turns()
    lane.leave(1, "a")
    second.cancel()  # it has the place by now, and has not been told yet
    await asyncio.wait_for(third, 5)
    assert second.cancelled()
    lane.leave(1, "a")
    assert (lane._free, lane._held, lane._places, lane._waiting) == (1, 0, {}, {})


async def test_what_needs_much_memory_goes_when_its_turn_has_come_and_enough_is_free() -> None:
    work = Work(3, most_held=10)
    tasks = [work.begin("a", "six", 6), work.begin("b", "five", 5), work.begin("c", "one", 1)]
    await turns()
    # In order: what comes after it may not take the memory that it waits for.
    assert work.begun == ["six"]
    work.may_end["six"].set()
    await turns()
    assert work.begun == ["six", "five", "one"]
    tasks.append(work.begin("a", "eleven", 11))
    await turns()
    for name in ("five", "one"):
        assert "eleven" not in work.begun
        work.may_end[name].set()
        await turns()
    assert work.begun[-1] == "eleven"
    work.may_end["eleven"].set()
    await asyncio.gather(*tasks)
    assert work.all_is_back(3)


async def test_who_steps_aside_gives_the_place_away_but_not_the_memory() -> None:
    lane = Lane(1, 10, most_late=1)
    await lane.enter(6, "a")
    small, large = asyncio.create_task(lane.enter(4, "b")), asyncio.create_task(lane.enter(1, "c"))
    await turns()
    assert not small.done()
    assert lane.step_aside("a")
    await turns()
    assert small.done()
    assert not large.done()
    assert not lane.step_aside("b"), "one at a time"
    lane.leave(6, "a", place=False)
    assert lane.step_aside("b")
    await turns()
    assert large.done()
    lane.leave(4, "b", place=False)
    lane.leave(1, "c")
    assert (lane._free, lane._held, lane._late_free, lane._places) == (1, 0, 1, {})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 12), st.booleans()), max_size=20), st.integers(1, 3))
def test_whoever_comes_and_goes_all_places_and_bytes_come_back(things: list[tuple[str, int, bool]], width: int) -> None:
    async def come_and_go() -> None:
        work = Work(width, most_held=10)
        tasks = [work.begin(caller, str(n), held) for n, (caller, held, _) in enumerate(things)]
        await turns()
        # Things that may end before they have begun pass their places on one after another.
        enough = 5 + 3 * len(things)
        for n, (_, _, gives_up) in enumerate(things):
            assert work.lane._held <= 10 or sum(work.doing.values()) == 1
            assert sum(work.doing.values()) <= width
            if gives_up:
                tasks[n].cancel()
            else:
                work.may_end[str(n)].set()
            await turns(enough)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert work.all_is_back(width)

    asyncio.run(come_and_go())


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel", "aside"]), st.integers(0, 150)), max_size=40))
def test_a_lane_never_holds_more_than_it_may_and_nobody_is_forgotten(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        lane, inside, waiting = Lane(2, 100, 6), list[tuple[int, bool]](), list[tuple[int, asyncio.Task[None]]]()

        async def settle() -> None:
            for _ in range(4):
                await asyncio.sleep(0)
            for entry in [entry for entry in waiting if entry[1].done()]:
                waiting.remove(entry)
                inside.append((entry[0], True))
            holding = [size for size, _ in inside]
            assert sum(holding) <= 100 or len(holding) == 1 or sum(1 for size in holding if size) == 1
            assert sum(in_line for _, in_line in inside) <= 2

        for what, number in steps:
            if what == "enter":
                waiting.append((number, asyncio.ensure_future(lane.enter(number, "a"))))
            elif what == "leave" and inside:
                size, in_line = inside.pop(number % len(inside))
                lane.leave(size, "a", place=in_line)
            elif what == "cancel" and waiting:
                waiting.pop(number % len(waiting))[1].cancel()
            elif what == "aside" and inside:
                at = number % len(inside)
                if inside[at][1] and lane.step_aside("a"):
                    inside[at] = (inside[at][0], False)
            await settle()
        while inside or waiting:
            assert inside, "pictures wait although nothing is being decoded"
            size, in_line = inside.pop()
            lane.leave(size, "a", place=in_line)
            await settle()

    asyncio.run(run())
