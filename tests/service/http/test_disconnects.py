"""Clients that disconnect while they wait for an answer, over raw ASGI."""

from __future__ import annotations

import asyncio
import random
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from service.domain.prediction import Limits
from service.engines import TopK
from service.http import disconnects
from service.http.disconnects import Watches
from tests.fakes import Fakes
from tests.loops import QuickLoop, run_quickly
from tests.pictures import picture


class Client:
    """A client that sends one request, and disconnects when the test says so."""

    def __init__(self, client: httpx.AsyncClient, body: bytes) -> None:
        self._app = client._transport.app  # type: ignore[attr-defined]
        self._body: bytes | None = body
        self._goes = asyncio.Event()
        self.watched = asyncio.Event()
        self.status = 0
        self.task = asyncio.create_task(self._request())

    def go(self) -> None:
        self._goes.set()

    async def _request(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "query_string": b"model=lenet5",
            "headers": [],
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        self.watched.set()
        await self._goes.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


class Held:
    """Forward passes wait until the test opens them."""

    def __init__(self, fakes: Fakes) -> None:
        self._engine = fakes.engines["lenet5@mnist"]
        self._run = self._engine.run
        self.running, self.open = threading.Event(), threading.Event()
        self._engine.run = self  # type: ignore[method-assign]

    def __call__(self, crops: np.typing.NDArray[np.uint8], whole: bool = False) -> TopK:
        self.running.set()
        assert self.open.wait(10), "the test never opened it"
        return self._run(crops, whole)

    @property
    def batches(self) -> list[int]:
        return self._engine.batches


async def test_a_client_that_disconnects_frees_its_place_in_the_queue(fakes: Fakes) -> None:
    fakes.limits = Limits(max_batch_size=1, max_queue=1)
    async with fakes.client() as client:
        held = Held(fakes)
        runs = Client(client, picture())
        assert await asyncio.to_thread(held.running.wait, 10)
        waits = Client(client, picture())
        await waits.watched.wait()
        refused = Client(client, picture())
        await refused.task
        waits.go()
        await waits.task
        follows = Client(client, picture())
        await follows.watched.wait()
        held.open.set()
        await asyncio.gather(runs.task, follows.task)
    assert [request.status for request in (runs, waits, refused, follows)] == [200, 499, 429, 200]
    assert held.batches == [1, 1]


async def test_a_client_that_disconnects_during_the_forward_pass_disturbs_no_other(fakes: Fakes) -> None:
    async with fakes.client() as client:
        held = Held(fakes)
        goes = Client(client, picture())
        assert await asyncio.to_thread(held.running.wait, 10)
        await goes.watched.wait()
        goes.go()
        await goes.task
        held.open.set()
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
    assert goes.status == 499


async def test_a_request_that_is_answered_at_once_is_not_watched(fakes: Fakes) -> None:
    async with fakes.client() as client:
        request = Client(client, picture())
        await request.task
    assert (request.status, request.watched.is_set()) == (200, False)


async def test_other_cancellations_propagate(fakes: Fakes) -> None:
    async with fakes.client() as client:
        held = Held(fakes)
        request = Client(client, picture())
        await request.watched.wait()
        request.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request.task
        held.open.set()
    assert request.status == 0


async def test_errors_pass_the_watch_and_end_it() -> None:
    never = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await never.wait()
        raise AssertionError

    async def fail() -> None:
        with Watches().watch(receive) as watch:
            watch.begin()
            await asyncio.sleep(0)
            raise KeyError

    before = asyncio.all_tasks()
    with pytest.raises(KeyError):
        await fail()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("server_first", [False, True])
async def test_the_servers_cancellation_goes_on_if_the_client_disconnects_too(server_first: bool) -> None:
    """Both cancel the task before it runs again. The watch ends its own cancellation alone."""
    gone = asyncio.Event()
    reached = []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def request() -> None:
        with Watches().watch(receive) as watch:
            watch.begin()
            reached.append("inside")
            await asyncio.Event().wait()
        reached.append("after")

    task = asyncio.create_task(request())
    await asyncio.sleep(0.01)
    if server_first:
        # Wakes the watch, which runs in the same turn of the event loop as the cancellation.
        gone.set()
        await asyncio.sleep(0)
        task.cancel()
    else:
        gone.set()
        asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert (reached, task.cancelled()) == (["inside"], True)


async def test_a_disconnect_ends_the_block_and_the_task_goes_on() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def request() -> tuple[bool, int]:
        task = asyncio.current_task()
        assert task is not None
        with Watches().watch(receive) as watch:
            watch.begin()
            await asyncio.Event().wait()
        # The task goes on as if nobody had cancelled it.
        await asyncio.sleep(0)
        return watch.gone, task.cancelling()

    assert await asyncio.wait_for(asyncio.create_task(request()), 10) == (True, 0)


async def test_other_messages_are_not_a_disconnect() -> None:
    messages = iter([{"type": "http.request"}, {"type": "http.request"}, {"type": "http.disconnect"}])
    received = []

    async def receive() -> dict[str, Any]:
        received.append(next(messages))
        return received[-1]

    async def request() -> bool:
        with Watches().watch(receive) as watch:
            watch.begin()
            await asyncio.Event().wait()
        return watch.gone

    assert await asyncio.wait_for(asyncio.create_task(request()), 10)
    assert len(received) == 3


@pytest.mark.parametrize("seed", range(5))
def test_each_request_is_watched_once_it_is_old_whoever_came_before_and_left(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an age between three quarters of 30 ms and 30 ms, since requests that came together begin together."""
    generator = random.Random(seed)

    async def test(loop: QuickLoop) -> None:
        monkeypatch.setattr(disconnects, "time", SimpleNamespace(monotonic=loop.time))
        watches, ages = Watches(), dict[int, float]()

        async def request(number: int, takes_s: float) -> None:
            began = loop.now

            async def receive() -> dict[str, Any]:
                ages[number] = loop.now - began
                await asyncio.Event().wait()
                raise AssertionError

            with watches.watch(receive):
                await asyncio.sleep(takes_s)

        takes_s = [generator.choice((0.001, 0.02, 0.022, 0.031, 0.1)) for _ in range(400)]
        tasks = []
        for number, seconds in enumerate(takes_s):
            tasks.append(asyncio.create_task(request(number, seconds)))
            # Some come in the same moment, others after a pause in which nobody is young.
            await asyncio.sleep(generator.choice((0.0, 0.0, 0.002, 0.009, 0.05)))
        await asyncio.gather(*tasks)
        assert set(ages) == {number for number, seconds in enumerate(takes_s) if seconds > 0.03}
        assert min(ages.values()) > 0.0224
        assert max(ages.values()) < 0.0301

    run_quickly(test)


def test_requests_that_are_answered_soon_share_one_timer_and_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(loop: QuickLoop) -> None:
        monkeypatch.setattr(disconnects, "time", SimpleNamespace(monotonic=loop.time))
        watches, before = Watches(), asyncio.all_tasks()

        async def receive() -> dict[str, Any]:
            raise AssertionError

        for _ in range(100):
            with watches.watch(receive):
                await asyncio.sleep(0.003)
        # Each sleep has a timer. Of the others, each lasts for at least three quarters of 30 ms.
        assert loop.timers - 100 <= 100 * 0.003 / 0.0225 + 1
        await asyncio.sleep(0.1)
        assert (loop.left, watches._young, asyncio.all_tasks()) == (0, {}, before)

    run_quickly(test)
