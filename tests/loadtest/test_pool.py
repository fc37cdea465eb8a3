"""The pool of an open loop: requests are sent when they are due, by any free user, and all of them are counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import gevent
import pytest
from gevent.event import Event

from loadtest._pool import Pool
from loadtest._requests import Request

#: Bounds a test that hangs; no statement about speed.
WITHIN_S = 20.0


@dataclass
class Run:
    """Records what the pool tells a run."""

    began: float = math.inf
    window_to: float = math.inf
    in_flight: int = 0
    lost: list[float] = field(default_factory=list)

    def begin(self) -> None:
        self.began = perf_counter()

    def end(self, at: float) -> None:
        self.window_to = min(self.window_to, at)

    def unsent(self, due: float) -> None:
        self.lost.append(round(due - self.began, 6))


def request(name: str) -> Request:
    return Request("classify", name, "/classify", b"")


def due(*seconds: float) -> Iterator[tuple[float, Request]]:
    return iter([(at, request(str(number))) for number, at in enumerate(seconds)])


@dataclass
class Users:
    """Users of a pool that record what they send and when it was due."""

    pool: Pool
    run: Run
    answered: Event | None = None
    """All requests get their answers once it is set; None: at once."""
    sent: list[tuple[str, float, float]] = field(default_factory=list)
    """The request, when it was due and when it was sent, in seconds after the beginning."""
    gone: int = 0

    def start(self, count: int) -> list[gevent.Greenlet[..., None]]:
        users = [gevent.spawn(self._work) for _ in range(count)]
        gevent.sleep(0)
        return users

    def _work(self) -> None:
        self.pool.work(self._send)
        self.gone += 1

    def _send(self, handed: Request, at: float) -> None:
        self.sent.append((handed.name, at - self.run.began, perf_counter() - self.run.began))
        self.run.in_flight += 1
        if self.answered is not None:
            self.answered.wait(WITHIN_S)
        self.run.in_flight -= 1


def pool(
    run: Run, requests: Iterator[tuple[float, Request]], until: float = math.inf, ended: list[str] | None = None
) -> Pool:
    at_end: Callable[[], object] = lambda: (ended if ended is not None else []).append("ended")  # noqa: E731
    return Pool(run, requests, until, at_end)


def wait_for(condition: Callable[[], object]) -> None:
    with gevent.Timeout(WITHIN_S):
        while not condition():
            gevent.sleep(0.005)


def test_requests_are_sent_in_order_and_not_before_they_are_due() -> None:
    run, ended = Run(), cast("list[str]", [])
    opened = pool(run, due(0.0, 0.02, 0.05), ended=ended)
    users = Users(opened, run)
    users.start(2)
    assert not opened.opened
    opened.open()
    assert opened.opened
    wait_for(lambda: ended)
    assert [name for name, _, _ in users.sent] == ["0", "1", "2"]
    assert [at for _, at, _ in users.sent] == pytest.approx([0.0, 0.02, 0.05])
    assert all(sent >= at for _, at, sent in users.sent)
    # The run ended with the last request, not with the last answer.
    assert run.window_to - run.began == pytest.approx(0.05)
    opened.close()
    assert run.lost == []


def test_a_user_that_waits_does_not_delay_the_others() -> None:
    run = Run()
    opened = pool(run, due(0.0, 0.01, 0.02))
    users = Users(opened, run, answered=Event())
    users.start(3)
    opened.open()
    wait_for(lambda: len(users.sent) == 3)
    assert run.in_flight == 3


def test_where_all_users_wait_latency_counts_from_when_a_request_was_due() -> None:
    run, ended = Run(), cast("list[str]", [])
    opened = pool(run, due(0.0, 0.01, 0.02), ended=ended)
    answered = Event()
    users = Users(opened, run, answered=answered)
    users.start(1)
    opened.open()
    gevent.sleep(0.05)
    # The only user waits for its first answer.
    assert len(users.sent) == 1
    answered.set()
    wait_for(lambda: ended)
    assert [at for _, at, _ in users.sent] == pytest.approx([0.0, 0.01, 0.02])
    assert users.sent[2][2] >= 0.05


def test_the_end_waits_for_answers() -> None:
    run, ended = Run(), cast("list[str]", [])
    opened = pool(run, due(0.0), ended=ended)
    answered = Event()
    users = Users(opened, run, answered=answered)
    users.start(1)
    opened.open()
    wait_for(lambda: users.sent)
    gevent.sleep(0.12)
    assert (run.in_flight, ended) == (1, [])
    answered.set()
    wait_for(lambda: ended)
    assert run.in_flight == 0


def test_requests_due_after_the_end_are_not_sent_and_do_not_end_the_run_early() -> None:
    run, ended = Run(), cast("list[str]", [])
    end = perf_counter() + 0.1
    opened = pool(run, due(0.0, 1000.0), until=end, ended=ended)
    users = Users(opened, run)
    users.start(1)
    opened.open()
    wait_for(lambda: run.window_to < math.inf)
    assert run.window_to == end
    assert [name for name, _, _ in users.sent] == ["0"]
    opened.close()
    # Locust ends this run; what was never due is not missing.
    assert (ended, run.lost) == ([], [])


def test_closing_counts_what_was_due_and_releases_users() -> None:
    run = Run()
    opened = pool(run, due(0.0, 0.01, 0.02, 1000.0))
    answered = Event()
    busy, free = Users(opened, run, answered=answered), Users(opened, run)
    busy.start(1)
    opened.open()
    gevent.sleep(0.05)
    opened.close()
    # The only user still waits for the first answer; two more were due.
    assert [name for name, _, _ in busy.sent] == ["0"]
    assert run.lost == [0.01, 0.02]
    assert busy.gone == 0
    answered.set()
    wait_for(lambda: busy.gone)
    free.start(2)
    assert free.gone == 2


def test_waiting_users_are_released_at_once() -> None:
    run = Run()
    opened = pool(run, due(1000.0))
    users = Users(opened, run)
    started = users.start(3)
    opened.open()
    gevent.sleep(0)
    opened.close()
    gevent.joinall(started, timeout=WITHIN_S)
    assert (users.gone, users.sent, run.lost) == (3, [], [])


def test_requests_that_a_late_generator_had_not_handed_out_are_counted() -> None:
    run = Run()
    opened = pool(run, due(0.001, 0.01, 0.02, 1000.0))
    opened.open()
    gevent.sleep(0)
    # The feeder sleeps until the first request is due, and gets no time to wake up.
    busy_until = perf_counter() + 0.05
    while perf_counter() < busy_until:
        pass
    opened.close()
    assert run.lost == [0.001, 0.01, 0.02]


def test_closing_twice_counts_once() -> None:
    run = Run()
    opened = pool(run, due(0.0, 1000.0))
    opened.open()
    gevent.sleep(0.01)
    opened.close()
    opened.close()
    assert run.lost == [0.0]
