"""Callers share a device: what a caller with many pictures costs another one, and that nobody starves."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.queue import DeadlineQueue, Ticket
from service.batching.turns import Turns
from service.domain.shares import FEW
from tests.clock import Clock

#: Device time of a picture.
EACH_S = 0.02


def slow(largest: int = 16) -> list[float]:
    """A device on which a batch takes as long as its pictures one by one."""
    return [0.0, *(EACH_S * size for size in range(1, largest + 1))]


def fast(largest: int = 16) -> list[float]:
    """A device that computes a full batch in little more than the time of one picture."""
    return [0.0, *(EACH_S * (1 + 0.01 * size) for size in range(largest))]


class Device:
    """A queue, and the batches that it gives."""

    def __init__(self, forward_s: Sequence[float] = (), limit: int = 1) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.queue: DeadlineQueue[str, Any] = DeadlineQueue(1000, 1000, self.turns)
        self.forward_s, self.limit = forward_s, limit
        self.pushed = 0

    def push(self, caller: str, deadline: float = math.inf) -> Ticket[str, Any]:
        self.pushed += 1
        # As the service's default does: who comes first has the earliest deadline.
        due = 1e6 + self.pushed if deadline == math.inf else deadline
        return self.queue.push(caller, due, 0, self.clock.now, caller=caller)

    def batch(self) -> list[str]:
        self.clock.now += EACH_S
        return self.queue.next_batch(self.limit, self.forward_s, 0.0, self.clock.now, EACH_S).items


async def test_a_picture_of_another_caller_goes_before_the_rest_of_a_bulk() -> None:
    device = Device()
    for _ in range(64):
        device.push("bulk")
    assert device.batch() == ["bulk"]
    device.push("polite")
    assert device.batch() == ["polite"]
    assert device.batch() == ["bulk"]


async def test_a_polite_caller_never_waits_for_more_than_one_picture_of_a_bulk() -> None:
    device = Device()
    waits = []
    for _ in range(200):
        while len(device.queue) < 64:
            device.push("bulk")
        device.push("polite")
        wait = 0
        while device.batch() != ["polite"]:
            wait += 1
        waits.append(wait)
        for _ in range(3):
            device.batch()
    assert max(waits) <= 1
    # Without turns it would wait for all pictures that came before it.
    assert len(device.queue) > 50


async def test_two_greedy_callers_get_the_same() -> None:
    device = Device()
    for _ in range(300):
        device.push("first")
    for _ in range(300):
        device.push("second")
    served = Counter(device.batch()[0] for _ in range(200))
    assert served == {"first": 100, "second": 100}


async def test_a_greedy_caller_does_not_starve_beside_a_light_one_that_always_waits() -> None:
    device = Device()
    for _ in range(300):
        device.push("greedy")
    served: Counter[str] = Counter()
    for _ in range(100):
        device.push("light")
        served[device.batch()[0]] += 1
        while device.turns._waiting.get("light", 0) > 1:
            served[device.batch()[0]] += 1
    assert served["greedy"] >= 45


async def test_time_that_was_not_used_cannot_be_saved_up() -> None:
    """A caller who comes late is not served alone until it has had as much as those who were there all the while."""
    device = Device()
    for _ in range(400):
        device.push("early")
    for _ in range(200):
        device.batch()
    for _ in range(100):
        device.push("late")
    served = Counter(device.batch()[0] for _ in range(100))
    assert served["early"] == pytest.approx(50, abs=1)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=80))
def test_a_lone_callers_pictures_go_by_their_deadlines(steps: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        device, waiting = Device(), list[tuple[int, int]]()
        for number, (deadline, push) in enumerate(steps):
            if push:
                device.push("lone", 1e6 + deadline).item = str(number)
                waiting.append((deadline, number))
            elif waiting:
                expected = min(waiting)
                waiting.remove(expected)
                assert device.batch() == [str(expected[1])]

    asyncio.run(run())


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(1, 8)), max_size=60),
    st.integers(1, 5),
)
def test_the_order_is_that_of_a_model(steps: list[tuple[str, int, int]], limit: int) -> None:
    """Against a model that knows no lines: it looks at every waiting picture for each place in a batch."""

    async def run() -> None:
        device, model = Device(limit=limit), Model()
        for number, (caller, deadline, count) in enumerate(steps):
            for copy in range(count):
                ticket = device.push(caller, 1e6 + deadline)
                ticket.item = f"{number}.{copy}"
                model.push(caller, deadline, ticket.number, ticket.item, device.clock.now)
            assert device.batch() == model.batch(limit, device.clock.now)
        while len(device.queue):
            assert device.batch() == model.batch(limit, device.clock.now)
        # Nothing of those who have gone counts.
        assert not device.turns.fair
        assert device.turns._waiting == {}

    asyncio.run(run())


class Model:
    """Start-time fair queuing of callers with many pictures or with most of the device, beside the others."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, int, int, str]] = []
        self.used: dict[str, float] = {}
        self.now = 0.0
        self.served: list[tuple[str, float]] = []
        self.most: str | None = None

    def push(self, caller: str, deadline: int, number: int, item: str, time: float) -> None:
        if not any(other == caller for other, *_ in self.waiting):
            self.used[caller] = max(self.used.get(caller, 0.0), self.now)
            if caller == self.most and self.had(caller, time) < 0.35:
                self.most = None
        self.waiting.append((caller, deadline, number, item))

    def had(self, caller: str, time: float) -> float:
        """Seconds of the device in the last second, by an exponential mean over all that was computed."""
        return sum(EACH_S * math.exp(at - time) for other, at in self.served if other == caller)

    def batch(self, limit: int, time: float) -> list[str]:
        counts = Counter(caller for caller, *_ in self.waiting)
        heavy = {caller for caller, count in counts.items() if count > FEW} or {self.most}
        taken = []
        while self.waiting and len(taken) < limit:
            best = min(
                self.waiting,
                key=lambda one: (max(0.0, self.used[one[0]] - self.now) if one[0] in heavy else 0.0, one[1], one[2]),
            )
            self.waiting.remove(best)
            self.now = max(self.now, self.used[best[0]])
            self.used[best[0]] += EACH_S
            self.served.append((best[0], time))
            if self.had(best[0], time) > 0.5:
                self.most = best[0]
            elif best[0] == self.most and self.had(best[0], time) < 0.35:
                self.most = None
            taken.append(best[3])
        return taken


async def test_a_bulk_is_computed_in_short_batches_while_others_are_about_and_in_full_ones_else() -> None:
    device = Device(slow(), limit=16)
    for _ in range(64):
        device.push("bulk")
    assert len(device.batch()) == 16
    device.push("polite")
    assert device.batch() == ["polite"]
    assert device.batch() == ["bulk"]
    device.clock.now += 2.0
    assert len(device.batch()) == 16


async def test_a_bulk_fills_the_batches_of_a_device_on_which_that_costs_others_nothing() -> None:
    device = Device(fast(), limit=16)
    for _ in range(64):
        device.push("bulk")
    device.push("polite")
    assert Counter(device.batch()) == {"polite": 1, "bulk": 15}
    assert len(device.batch()) == 16


async def test_batches_of_a_few_milliseconds_are_short_anyway() -> None:
    device = Device([0.0, *(0.001 * size for size in range(1, 17))], limit=16)
    for _ in range(64):
        device.push("bulk")
    device.push("polite")
    assert Counter(device.batch()) == {"polite": 1, "bulk": 4}


async def test_many_callers_with_few_pictures_share_full_batches_by_their_deadlines() -> None:
    device = Device(slow(), limit=16)
    for number in range(32):
        device.push(f"caller {number}", 1e6 + 32 - number)
    assert not device.turns.fair
    assert device.batch() == [f"caller {number}" for number in range(31, 15, -1)]


async def test_a_light_caller_is_told_that_a_bulk_is_not_ahead_of_it() -> None:
    device = Device()
    for _ in range(64):
        device.push("bulk")
    device.push("other")
    assert device.queue.ahead_of(math.inf, "polite") == 2
    # A caller who has as many waits for its own.
    assert device.queue.ahead_of(math.inf, "bulk") == 65
    # One with eight of its own waits for as many of the bulk, and one.
    for _ in range(8):
        device.push("busy")
    assert device.queue.ahead_of(math.inf, "busy") == 8 + 1 + 9


async def test_what_is_said_to_be_ahead_is_what_goes_before() -> None:
    """Two heavy callers and some light ones, in every order of their first pictures."""
    for first, second in (("bulk", "busy"), ("busy", "bulk")):
        device = Device()
        counts = {"bulk": 40, "busy": 10}
        for caller in (first, second):
            for _ in range(counts[caller]):
                device.push(caller)
        for number in range(3):
            device.push(f"light {number}")
        said = device.queue.ahead_of(math.inf, "busy")
        device.push("busy")
        went = 0
        while device.batch() != ["busy"] or device.turns._waiting.get("busy", 0):
            went += 1
        # Which of the two begins is not said.
        assert abs(said - went) <= 1


async def test_callers_who_have_gone_are_forgotten() -> None:
    device = Device()
    for number in range(10_000):
        device.push(f"caller {number}")
        device.batch()
    assert len(device.turns._used_s) < 3000
    for caller in ("a", "b"):
        for _ in range(FEW + 1):
            device.push(caller)
    assert device.turns.fair
    device.queue.clear()
    assert not device.turns.fair


async def test_the_most_urgent_of_two_queues_of_a_device_is_that_of_the_light_caller() -> None:
    device = Device()
    other: DeadlineQueue[str, Any] = DeadlineQueue(1000, 1000, device.turns)
    for _ in range(64):
        device.push("bulk")
    device.batch()
    other.push("polite", 2e6, 0, 0.0, caller="polite")
    assert other.urgency() < device.queue.urgency()
    other.clear()
    other.push("bulk", 2e6, 0, 0.0, caller="bulk")
    assert device.queue.urgency() < other.urgency() < (math.inf, math.inf)


async def test_a_caller_with_most_of_the_device_is_not_ahead_by_its_near_deadlines() -> None:
    """It has two pictures waiting at any time, so that it never has many, and they are always due first."""
    device = Device()
    for _ in range(2):
        device.push("greedy", device.clock.now + 0.1)
    for _ in range(60):
        assert device.batch() == ["greedy"]
        device.push("greedy", device.clock.now + 0.1)
    device.push("polite", device.clock.now + 30)
    # The polite one's is next, or after one that has just begun.
    assert "polite" in [*device.batch(), *device.batch()]


async def test_a_caller_with_less_than_half_of_the_device_keeps_its_deadlines() -> None:
    device = Device()
    for _ in range(60):
        device.push("urgent", device.clock.now + 0.1)
        assert device.batch() == ["urgent"]
        device.clock.now += 2 * EACH_S  # idle: a third of the device is used
    device.push("polite", device.clock.now + 30)
    for _ in range(3):
        device.push("urgent", device.clock.now + 0.1)
    assert [device.batch() for _ in range(4)] == [["urgent"], ["urgent"], ["urgent"], ["polite"]]


async def test_who_had_most_of_the_device_is_light_again_after_a_pause() -> None:
    device = Device()
    for _ in range(60):
        device.push("urgent", device.clock.now + 0.1)
        device.batch()
    device.clock.now += 2
    device.push("polite", device.clock.now + 30)
    device.push("urgent", device.clock.now + 0.1)
    assert device.batch() == ["urgent"]


async def test_what_callers_had_is_forgotten_with_them() -> None:
    device = Device()
    for number in range(3000):
        device.push(f"caller {number}")
        device.batch()
    assert len(device.turns._had_s) < 2000


async def test_beside_a_bulk_a_caller_with_most_of_the_device_but_few_pictures_is_not_held_to_its_share() -> None:
    """It uses two thirds of the device. Then a bulk comes: each of its pictures has at most one of the bulk's before
    it."""
    device = Device()
    for _ in range(60):
        device.push("steady", device.clock.now + 30)
        assert device.batch() == ["steady"]
        device.clock.now += EACH_S / 2  # idle
    for _ in range(64):
        device.push("bulk", device.clock.now + 30)
    device.batch()
    for _ in range(10):
        assert device.queue.ahead_of(device.clock.now + 30, "steady") <= 1
        for _ in range(2):
            device.push("steady", device.clock.now + 30)
        assert [device.batch() for _ in range(4)].count(["steady"]) == 2


async def test_whoever_comes_to_a_queue_full_of_one_callers_pictures_has_few_ahead() -> None:
    device = Device()
    for _ in range(64):
        device.push("bulk")
    assert device.queue.ahead_of(math.inf, "polite") <= 1
    assert device.queue.ahead_of(math.inf, "bulk") == 64
