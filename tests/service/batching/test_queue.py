"""The queue of one checkpoint: in which order, how many, how heavy."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.queue import DeadlineQueue, Ticket
from service.domain.errors import OverloadedError

Queue = DeadlineQueue[str, None]


def push(queue: Queue, item: str, deadline: float = 0.0, size: int = 0) -> Ticket[str, None]:
    queue.check_room(1, size, 0.1)
    return queue.push(item, deadline, size, now=0.0)


def drained(queue: Queue) -> list[str]:
    items = []
    while queue.first() is not None:
        items.append(queue.pop().item)
    return items


async def test_the_earliest_deadline_is_first_and_equal_ones_keep_their_order() -> None:
    queue = Queue(9, 0)
    for item, deadline in (("c", 3), ("a", 1), ("b", 2), ("d", 3)):
        push(queue, item, deadline)
    assert drained(queue) == ["a", "b", "c", "d"]
    assert queue.first() is None


async def test_a_full_queue_says_when_there_should_be_room() -> None:
    queue = Queue(2, 0)
    queue.check_room(2, 0, 0.1)
    push(queue, "a")
    with pytest.raises(OverloadedError) as refused:
        queue.check_room(4, 0, 0.1)
    assert refused.value.retry_after_s == pytest.approx(0.3)
    push(queue, "b")
    with pytest.raises(OverloadedError) as refused:
        queue.check_room(1, 0, 0.0)
    assert refused.value.retry_after_s == 1.0


async def test_bytes_are_bounded_but_one_item_always_has_room() -> None:
    queue = Queue(9, 100)
    heavy = push(queue, "heavy", size=1000)
    with pytest.raises(OverloadedError, match="MB"):
        push(queue, "light", size=1)
    queue.leave(heavy)
    push(queue, "half", size=50)
    push(queue, "other half", size=50)
    with pytest.raises(OverloadedError) as refused:
        queue.check_room(1, 50, 0.1)
    assert refused.value.retry_after_s == pytest.approx(0.1)


async def test_whoever_leaves_frees_place_and_bytes_once() -> None:
    queue = Queue(2, 100)
    a, b = push(queue, "a", 1, 50), push(queue, "b", 2, 50)
    queue.leave(a)
    queue.leave(a)
    assert len(queue) == 1
    push(queue, "c", 0, 50)
    assert queue.pop().item == "c"
    # It is in a batch by now, and takes no place.
    assert queue.pop() is b
    queue.leave(b)
    assert len(queue) == 0
    push(queue, "d", size=100)


async def test_who_does_not_wait_any_more_is_passed_over() -> None:
    queue = Queue(2, 100)
    push(queue, "a", 1, 50).answer.cancel()
    push(queue, "b", 2, 50)
    ticket = queue.first()
    assert ticket is not None
    assert (ticket.item, len(queue)) == ("b", 1)
    push(queue, "c", 3, 50)


async def test_clearing_gives_everybody_and_all_the_room() -> None:
    queue = Queue(2, 100)
    tickets = [push(queue, item, size=50) for item in "ab"]
    assert set(map(id, queue.clear())) == set(map(id, tickets))
    assert (len(queue), queue.first()) == (0, None)
    push(queue, "c", size=100)


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "leave"]), st.integers(0, 9), st.integers(0, 30))))
def test_against_a_sorted_list(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        queue = Queue(5, 60)
        model: list[Ticket[str, None]] = []
        for step, number, size in steps:
            if step == "push":
                full = len(model) >= 5 or (model and sum(ticket.size for ticket in model) + size > 60)
                if full:
                    with pytest.raises(OverloadedError):
                        queue.check_room(1, size, 0.1)
                else:
                    model.append(push(queue, "", number, size))
            elif model and step == "pop":
                assert queue.first() is min(model)
                model.remove(queue.pop())
            elif model:
                ticket = model.pop(number % len(model))
                ticket.answer.cancel()
                queue.leave(ticket)
            assert len(queue) == len(model)
        while queue.first() is not None:
            assert queue.pop() is min(model)
            model.remove(min(model))
        assert not model

    asyncio.run(run())
