"""The load generator: what counts, what it posts, and what becomes of errors. Against the load test's stub, and a
server that does what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from bench.gpu import callers
from bench.gpu.callers import CLOSED, UNANSWERED, Load, Seen, _Loop, load, status_of
from tests.generating import stub

JPEG = b"\xff\xd8 picture \xff\xd9"
PLAIN = Load(0, "/classify?model=googlenet", JPEG, connections=4, warm_s=0.0, seconds=0.3)


def answer(status: int = 200, batch: int = 3) -> bytes:
    body = b'{"model":"googlenet","batch_size":%d,"top5":[]}' % batch
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


Reply = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


@asynccontextmanager
async def server(reply: Reply, received: list[bytes] | None = None) -> AsyncIterator[int]:
    """Calls ``reply`` with the number of each request; yields its port."""
    count = 0
    serving = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        serving.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                if received is not None:
                    received.append(head + body)
                count += 1
                await reply(writer, count)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await asyncio.wait([task for task in serving if task is not None])


async def at_once(writer: asyncio.StreamWriter, _number: int) -> None:
    writer.write(answer())


def test_two_processes_share_the_load_and_their_answers_are_added() -> None:
    with stub() as url:
        port = int(url.rpartition(":")[2])
        seen = load(replace(PLAIN, port=port, connections=3), 2)
    assert seen.errors == 0
    assert seen.answered > 10
    # The stub's batches have three pictures.
    assert seen.batches == 3 * seen.answered
    assert len(seen.latencies_s) == seen.statuses[200] >= seen.answered
    assert 0 < seen.busy <= 1.1


def test_an_open_loop_sends_as_much_as_is_due() -> None:
    with stub() as url:
        port = int(url.rpartition(":")[2])
        seen = load(replace(PLAIN, port=port, rate=200.0, seconds=1.0, seed=3), 1)
    # Poisson arrivals: 200, give or take four deviations of 14.
    assert 140 < seen.statuses[200] < 260
    assert seen.errors == 0


async def test_it_posts_the_picture_over_connections_that_are_kept() -> None:
    received: list[bytes] = []
    async with server(at_once, received) as port:
        await _Loop(replace(PLAIN, port=port, connections=1)).run()
    assert len(received) > 5
    assert set(received) == {
        f"POST /classify?model=googlenet HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(JPEG)}\r\n\r\n".encode()
        + JPEG
    }


async def test_answers_of_the_warm_up_do_not_count() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def slowly(writer: asyncio.StreamWriter, _number: int) -> None:
        await asyncio.sleep(0.005)
        times.append(loop.time())
        writer.write(answer())

    async with server(slowly) as port:
        seen = await _Loop(replace(PLAIN, port=port, connections=1, warm_s=0.3)).run()
    early = sum(time < times[0] + 0.25 for time in times)
    assert early > 5
    assert 0 < seen.statuses[200] <= len(times) - early
    assert 0 < seen.answered <= len(times) - early


async def test_errors_are_counted_by_status_and_make_no_rate() -> None:
    async def every_third_fails(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(answer(429 if number % 3 == 0 else 200))

    async with server(every_third_fails) as port:
        seen = await _Loop(replace(PLAIN, port=port, connections=1)).run()
    assert seen.statuses[429] == seen.errors > 1
    assert seen.statuses[200] == len(seen.latencies_s)
    assert 1.5 < seen.statuses[200] / seen.statuses[429] < 2.6
    assert seen.answered <= seen.statuses[200]


async def test_a_connection_that_ends_is_an_error_and_the_others_go_on() -> None:
    async def second_ends(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 2:
            writer.close()
        else:
            writer.write(answer())

    async with server(second_ends) as port:
        seen = await _Loop(replace(PLAIN, port=port, connections=2)).run()
    assert seen.statuses[CLOSED] == seen.errors == 1
    assert seen.statuses[200] > 5


async def test_what_is_never_answered_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_PATIENCE_S", 0.1)

    async def never(writer: asyncio.StreamWriter, _number: int) -> None:
        pass

    async with server(never) as port:
        seen = await _Loop(replace(PLAIN, port=port, connections=3, seconds=0.1)).run()
        assert (seen.statuses[UNANSWERED], seen.answered) == (3, 0)
        late = await _Loop(replace(PLAIN, port=port, connections=1, seconds=0.2, rate=100.0)).run()
    # One is under way; the others wait for the connection.
    assert late.statuses[UNANSWERED] > 5


async def test_latency_counts_from_when_a_request_was_due() -> None:
    async def slowly(writer: asyncio.StreamWriter, _number: int) -> None:
        await asyncio.sleep(0.05)
        writer.write(answer())

    async with server(slowly) as port:
        seen = await _Loop(replace(PLAIN, port=port, connections=1, seconds=0.5, rate=60.0, seed=1)).run()
    # Twenty a second are answered, so that the queue grows: the last wait for many others.
    assert max(seen.latencies_s) > 5 * 0.05


def test_quantiles() -> None:
    seen = Seen(latencies_s=[0.003, 0.001, 0.002, 0.004])
    assert (seen.quantile_ms(0.5), seen.quantile_ms(0.99), seen.quantile_ms(0)) == (3, 4, 1)
    assert Seen().quantile_ms(0.5) is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\n", None),
        (answer(), 200),
        (answer()[:-1], None),
        (answer(503), 503),
        (b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", 204),
    ],
)
def test_statuses(data: bytes, status: int | None) -> None:
    assert status_of(data) == status


def test_an_answer_without_a_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="no Content-Length"):
        status_of(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "batch"),
    [(answer(batch=128), 128), (b'{"batch_size": 7}', 7), (b"{}", 0), (b'{"batch_size":null}', 0)],
)
def test_batch_sizes(data: bytes, batch: int) -> None:
    assert callers._batch_of(data) == batch
