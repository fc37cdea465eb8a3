"""A lane's places go round among callers, and every place and byte comes back."""

from __future__ import annotations

import threading
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from service.inference.lane import Lane, Place

_ALL = 1_000


class Thing(Place):
    """Something that has a place, or waits for one."""

    def __init__(self, name: str, held: int, caller: str) -> None:
        super().__init__(held, caller)
        self.name = name


class Work:
    """Things in a lane, which go on until a test ends them."""

    def __init__(self, width: int, most_held: int = _ALL, most_late: int = 0) -> None:
        self._width, self._most_late = width, most_late
        self.lane = Lane[Thing](width, most_held, most_late)
        self.begun: list[str] = []
        self.doing: dict[str, Thing] = {}

    def begin(self, caller: str, name: str, held: int = 1) -> Thing:
        thing = Thing(name, held, caller)
        if self.lane.enter(thing):
            self._began([thing])
        return thing

    def _began(self, things: list[Thing]) -> None:
        for thing in things:
            self.begun.append(thing.name)
            self.doing[thing.name] = thing

    def end(self, name: str) -> None:
        self._began(self.lane.leave(self.doing.pop(name)))

    def step_aside(self, thing: Thing) -> None:
        self._began(self.lane.step_aside(thing))

    def give_up(self, thing: Thing) -> bool:
        """Whether it waited."""
        following = self.lane.give_up(thing)
        self._began(following or [])
        return following is not None

    def end_all(self) -> None:
        while self.doing:
            self.end(next(iter(self.doing)))

    @property
    def all_is_back(self) -> bool:
        lane = self.lane
        found = (lane._free, lane._late_free, lane._held, lane._places, lane._waiting)
        return found == (self._width, self._most_late, 0, {}, {})


def test_a_free_place_goes_to_the_caller_with_the_fewest() -> None:
    work = Work(2)
    for n in range(5):
        work.begin("bulk", f"bulk {n}")
    work.begin("polite", "polite")
    assert work.begun == ["bulk 0", "bulk 1"]
    work.end("bulk 0")
    assert work.begun[2:] == ["polite"]
    work.end_all()
    assert work.begun == ["bulk 0", "bulk 1", "polite", "bulk 2", "bulk 3", "bulk 4"]
    assert work.all_is_back


def test_callers_with_as_many_take_turns() -> None:
    work = Work(1)
    work.begin("first", "held")
    for caller in "abc":
        for n in range(2):
            work.begin(caller, f"{caller} {n}")
    work.end_all()
    assert work.begun[1:] == ["a 0", "b 0", "c 0", "a 1", "b 1", "c 1"]
    assert work.all_is_back


def test_a_thing_that_waits_and_is_given_up_takes_nobodys_place() -> None:
    work = Work(1)
    first, second, _ = [work.begin("bulk", name) for name in ("first", "second", "third")]
    assert work.give_up(second)
    assert not work.give_up(second), "it is forgotten already"
    assert not work.give_up(first), "its turn has come"
    work.end_all()
    assert work.begun == ["first", "third"]
    assert work.all_is_back


def test_those_behind_a_large_thing_that_is_given_up_need_not_wait_for_its_memory() -> None:
    work = Work(2, most_held=10)
    work.begin("a", "six", 6)
    large = work.begin("b", "five", 5)
    work.begin("c", "four", 4)
    assert work.begun == ["six"]
    work.give_up(large)
    assert work.begun == ["six", "four"]
    work.end_all()
    assert work.all_is_back


def test_what_needs_much_memory_goes_when_its_turn_has_come_and_enough_is_free() -> None:
    work = Work(3, most_held=10)
    for caller, name, held in (("a", "six", 6), ("b", "five", 5), ("c", "one", 1)):
        work.begin(caller, name, held)
    # In order: what comes after it may not take the memory that it waits for.
    assert work.begun == ["six"]
    work.end("six")
    assert work.begun == ["six", "five", "one"]
    work.begin("a", "eleven", 11)
    for name in ("five", "one"):
        assert "eleven" not in work.begun
        work.end(name)
    assert work.begun[-1] == "eleven"
    work.end_all()
    assert work.all_is_back


def test_who_steps_aside_gives_the_place_away_but_not_the_memory() -> None:
    work = Work(1, most_held=10, most_late=1)
    first = work.begin("a", "first", 6)
    small = work.begin("b", "small", 4)
    work.begin("c", "large", 1)
    assert work.begun == ["first"]
    work.step_aside(first)
    assert work.begun == ["first", "small"]
    work.step_aside(first)
    assert work.begun == ["first", "small"], "it has no place any more"
    work.step_aside(small)
    assert work.begun == ["first", "small"], "one at a time"
    work.end("first")
    assert work.begun == ["first", "small"], "its place was given away already"
    work.step_aside(small)
    assert work.begun[2:] == ["large"]
    work.end_all()
    assert work.all_is_back


def test_what_is_done_has_no_place_that_it_could_give_away() -> None:
    work = Work(1, most_late=1)
    thing = work.begin("a", "done")
    work.end("done")
    work.step_aside(thing)
    assert work.all_is_back


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 12), st.booleans()), max_size=20), st.integers(1, 3))
def test_whoever_comes_and_goes_all_places_and_bytes_come_back(things: list[tuple[str, int, bool]], width: int) -> None:
    work = Work(width, most_held=10)
    begun = [work.begin(caller, f"{n} {gives_up}", held) for n, (caller, held, gives_up) in enumerate(things)]
    for thing in begun:
        doing = list(work.doing.values())
        assert sum(place.held for place in doing) <= 10 or len(doing) == 1
        assert len(doing) <= width
        if thing.name not in work.doing:
            assert work.give_up(thing) == (thing.name not in work.begun)
        else:
            work.end(thing.name)
    assert not work.doing
    assert work.all_is_back


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel", "aside"]), st.integers(0, 150)), max_size=40))
def test_a_lane_never_holds_more_than_it_may_and_nobody_is_forgotten(steps: list[tuple[str, int]]) -> None:
    work = Work(2, most_held=100, most_late=6)
    entered: list[Thing] = []
    for n, (what, number) in enumerate(steps):
        if what == "enter":
            entered.append(work.begin("a", str(n), number))
        elif what == "leave" and work.doing:
            work.end(list(work.doing)[number % len(work.doing)])
        elif what == "cancel" and (waiting := [thing for thing in entered if thing.name not in work.begun]):
            thing = waiting[number % len(waiting)]
            assert work.give_up(thing)
            entered.remove(thing)
        elif what == "aside" and work.doing:
            work.step_aside(list(work.doing.values())[number % len(work.doing)])
        holding = list(work.doing.values())
        sizes = [place.held for place in holding if place.held]
        assert sum(sizes) <= 100 or len(sizes) == 1
        assert sum(not place.aside for place in holding) <= 2
    work.end_all()
    assert work.begun == [thing.name for thing in entered], "in the order in which they came, and none is left"
    assert work.all_is_back


def test_threads_pass_places_on_themselves() -> None:
    """Whoever is done begins the next ones, in its own thread, and no two threads take one place."""
    width = 3
    lane, source = Lane[Place](width, _ALL, width), Random(1)
    lock, doing, most, done = threading.Lock(), 0, 0, 0

    def work(place: Place) -> None:
        nonlocal doing, most, done
        with lock:
            doing += 1
            most = max(most, doing)
        with lock:
            doing -= 1
            done += 1
        for following in lane.leave(place):
            work(following)

    def come(caller: str) -> None:
        for _ in range(100):
            place = Place(source.randrange(400), caller)
            if lane.enter(place):
                work(place)

    threads = [threading.Thread(target=come, args=(caller,)) for caller in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == 600
    assert most <= width
    assert (lane._free, lane._held, lane._places, lane._waiting) == (width, 0, {}, {})
