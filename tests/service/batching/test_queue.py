"""The queue of one checkpoint: its order, its bounds, and where a batch ends."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.queue import Batch, DeadlineQueue, Ticket
from service.domain.errors import DeadlineMissedError, OverloadedError

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


async def test_a_full_queue_tells_when_there_should_be_room() -> None:
    queue = Queue(2, 0)
    queue.check_room(2, 0, 0.1)
    push(queue, "a")
    with pytest.raises(OverloadedError) as refused:
        queue.check_room(4, 0, 0.1)
    assert refused.value.retry_after_s == pytest.approx(0.3)
    push(queue, "b")
    with pytest.raises(OverloadedError, match="2 pictures are waiting, the most that are let in is 2"):
        queue.check_room(1, 0, 0.1)
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
    # All that waits must go before so many more bytes fit.
    with pytest.raises(OverloadedError) as refused:
        queue.check_room(1, 100, 0.1)
    assert refused.value.retry_after_s == pytest.approx(0.2)


async def test_the_advice_of_a_queue_that_is_too_heavy_is_the_time_for_the_share_that_must_go() -> None:
    """Half of the 80 bytes must go, which are two of four items."""
    queue = Queue(9, 100)
    for _ in range(4):
        push(queue, "", size=20)
    with pytest.raises(OverloadedError) as refused:
        queue.check_room(1, 60, 0.1)
    assert refused.value.retry_after_s == pytest.approx(0.2)
    with pytest.raises(OverloadedError) as refused:
        queue.check_room(1, 60, 0.0)
    assert refused.value.retry_after_s == 1.0


async def test_bytes_up_to_the_limit_have_room_and_one_more_has_none() -> None:
    queue = Queue(9, 100)
    push(queue, "a", size=60)
    queue.check_room(1, 40, 0.1)
    with pytest.raises(OverloadedError):
        queue.check_room(1, 41, 0.1)
    # Several at once have no room that a single one would have in an empty queue.
    empty = Queue(9, 100)
    empty.check_room(1, 101, 0.1)
    with pytest.raises(OverloadedError):
        empty.check_room(2, 101, 0.1)


async def test_a_ticket_that_leaves_frees_its_place_and_bytes_once() -> None:
    queue = Queue(2, 100)
    a, b = push(queue, "a", 1, 50), push(queue, "b", 2, 50)
    queue.leave(a)
    queue.leave(a)
    assert len(queue) == 1
    push(queue, "c", 0, 50)
    assert queue.pop().item == "c"
    # This one is in a batch by now, and takes no place.
    assert queue.pop() is b
    queue.leave(b)
    assert len(queue) == 0
    push(queue, "d", size=100)


async def test_a_ticket_whose_caller_has_gone_is_dropped() -> None:
    queue = Queue(2, 100)
    push(queue, "a", 1, 50).answer.cancel()
    push(queue, "b", 2, 50)
    ticket = queue.first()
    assert ticket is not None
    assert (ticket.item, len(queue)) == ("b", 1)
    push(queue, "c", 3, 50)


async def test_clearing_takes_out_all_tickets_and_frees_all_the_room() -> None:
    queue = Queue(2, 100)
    tickets = [push(queue, item, size=50) for item in "ab"]
    assert set(map(id, queue.clear())) == set(map(id, tickets))
    assert (len(queue), queue.first()) == (0, None)
    push(queue, "c", size=50)
    push(queue, "d", size=50)


async def test_the_longest_wait_is_that_of_the_first_that_came() -> None:
    queue = Queue(9, 0)
    assert queue.oldest_at() is None
    for deadline, now in ((3.0, 10.0), (1.0, 11.0), (2.0, 12.0)):
        queue.push("", deadline, 0, now)
    assert queue.oldest_at() == 10.0


async def test_an_item_goes_behind_those_of_the_same_deadline() -> None:
    queue = Queue(9, 0)
    for deadline in (1.0, 2.0, 2.0, 3.0):
        push(queue, "", deadline)
    assert [queue.ahead_of(deadline) for deadline in (0.5, 1.0, 1.5, 2.0, 9.0)] == [0, 1, 1, 3, 4]


#: A device on which an item takes a second, in whatever batch.
CPU = tuple(float(size) for size in range(17))
#: A device on which a batch of any size takes ten seconds.
GPU = (0.0, *[10.0] * 16)


def batch_of(
    deadlines: list[float], largest: int = 4, forward_s: tuple[float, ...] = (), fastest_s: float = 0.0, now: float = 0
) -> tuple[Batch[str, None], Queue]:
    queue = Queue(99, 0)
    for number, deadline in enumerate(deadlines):
        push(queue, str(number), deadline)
    return queue.next_batch(largest, forward_s, fastest_s, now), queue


@pytest.mark.parametrize(
    ("waiting", "largest", "taken", "cut", "pressed"),
    [
        (0, 4, 0, "drained", False),
        (1, 4, 1, "drained", False),
        (3, 4, 3, "drained", False),
        (4, 4, 4, "full", True),
        (9, 4, 4, "full", True),
        (1, 1, 1, "full", False),
        (2, 1, 1, "full", True),
    ],
)
async def test_a_batch_ends_when_it_is_full_or_the_queue_empty(
    waiting: int, largest: int, taken: int, cut: str, pressed: bool
) -> None:
    batch, queue = batch_of([9.0] * waiting, largest)
    assert (len(batch.tickets), batch.cut, batch.pressed, len(queue)) == (taken, cut, pressed, waiting - taken)
    assert batch.items == [str(number) for number in range(taken)]


@pytest.mark.parametrize(("deadline", "taken"), [(1.0, 1), (1.9, 1), (2.0, 2), (2.9, 2), (3.0, 3), (4.0, 4)])
async def test_a_batch_ends_before_it_would_break_its_earliest_deadline(deadline: float, taken: int) -> None:
    batch, _ = batch_of([deadline, 50.0, 60.0, 70.0, 80.0], forward_s=CPU)
    assert (len(batch.tickets), batch.cut) == (taken, "full" if taken == 4 else "deadline")
    later, _ = batch_of([7 + deadline, 50.0, 60.0, 70.0, 80.0], forward_s=CPU, now=7)
    assert len(later.tickets) == taken


async def test_a_deadline_that_would_cost_much_throughput_ends_no_batch() -> None:
    batch, _ = batch_of([10.0, 50.0, 60.0, 70.0, 80.0], forward_s=GPU)
    assert (len(batch.tickets), batch.cut) == (4, "full")


async def test_after_a_deadline_that_is_given_up_the_next_one_ends_the_batch() -> None:
    """The second item breaks the first deadline, where a full batch would take half the time for an item. The fourth
    breaks the second, where it saves nothing any more."""
    batch, _ = batch_of([4.0, 6.0, 50.0, 60.0, 70.0], forward_s=(0.0, 4.0, 5.0, 6.0, 8.0))
    assert (batch.items, batch.cut) == (["0", "1", "2"], "deadline")


@pytest.mark.parametrize(("full_s", "cut"), [(3.1, "full"), (3.2, "deadline"), (3.3, "deadline")])
async def test_a_deadline_may_cost_a_fifth_of_the_throughput(full_s: float, cut: str) -> None:
    """Alone an item takes a second; in a full batch of four 0.8 s are a fifth less."""
    batch, _ = batch_of([1.0, 50.0, 50.0, 50.0], forward_s=(0.0, 1.0, 2.0, 3.0, full_s))
    assert batch.cut == cut


async def test_the_throughput_that_counts_is_that_of_the_batch_that_the_waiting_items_would_be() -> None:
    """Two items take as long together as one after the other, however fast sixteen would be."""
    batch, _ = batch_of([1.0, 50.0], largest=16, forward_s=(0.0, 1.0, 2.0, *[2.1] * 14))
    assert (len(batch.tickets), batch.cut) == (1, "deadline")


async def test_a_ticket_that_even_the_fastest_pass_would_make_late_is_answered_with_an_error() -> None:
    batch, queue = batch_of([12.9, 13.0, 50.0], fastest_s=3.0, now=10.0)
    assert batch.items == ["1", "2"]
    ticket = queue.push("late", 12.9, 0, now=4.0)
    empty = queue.next_batch(4, (), 3.0, 10.0)
    assert (empty.tickets, empty.cut) == ([], "drained")
    with pytest.raises(DeadlineMissedError, match="after 6000 ms in the queue"):
        ticket.answer.result()


async def test_hopeless_tickets_take_no_place_in_a_batch() -> None:
    queue = Queue(99, 0)
    late = [push(queue, "late", 1.0) for _ in range(3)]
    for number in range(4):
        push(queue, str(number), 50.0)
    batch = queue.next_batch(4, (), 0.0, now=2.0)
    assert (batch.items, batch.cut) == (["0", "1", "2", "3"], "full")
    for ticket in late:
        assert isinstance(ticket.answer.exception(), DeadlineMissedError)


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
