"""Serving the metrics of a process, reading those of several, and adding them up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import exposition
from service.telemetry.exposition import OwnProcess, Target, added_up, read_all, serve_metrics
from tests.exposing import Process, serving

MODELS = ("lenet5", "vgg16")


processes = st.lists(
    st.lists(st.tuples(st.sampled_from(MODELS), st.integers(0, 1000), st.sampled_from((0.0625, 0.5, 4.0))), max_size=8),
    min_size=1,
    max_size=4,
)


@given(processes)
def test_processes_add_up(happened: list[list[tuple[str, int, float]]]) -> None:
    texts, everything = [], Process()
    for index, events in enumerate(happened):
        process = Process()
        for model, times, seconds in events:
            for each in (process, everything):
                each.requests.labels(model).inc(times)
                each.seconds.labels(model).observe(seconds)
            process.oldest.labels(model).set(seconds)
        process.held.set(index)
        texts.append(process.text)
    everything.held.set(sum(range(len(happened))))
    for model in MODELS:
        last = [{m: s for m, _, s in events}.get(model) for events in happened]
        ages = [age for age in last if age is not None]
        if ages:
            everything.oldest.labels(model).set(max(ages))
    assert _samples(added_up(texts).decode()) == _samples(everything.text)


def test_the_sum_is_what_prometheus_reads() -> None:
    process = Process()
    process.requests.labels('a "quoted"\nname\\').inc()
    text = added_up([process.text, process.text]).decode()
    assert "# TYPE requests_total counter" in text
    assert "# HELP seconds How long." in text
    assert _samples(text)[("requests_total", (("model", 'a "quoted"\nname\\'),))] == 2


class Answering:
    """A process that answers in a way of its own.

    Args:
        head: the beginning of the answer.
        rest: bytes that follow one by one, with pauses, until the client hangs up.
    """

    def __init__(self, head: bytes, rest: bytes = b"") -> None:
        self._head, self._rest = head, rest
        self.sent = 0
        self.over = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._head)
            for byte in self._rest:
                writer.write(bytes([byte]))
                await writer.drain()
                self.sent += 1
                await asyncio.sleep(0.01)
        writer.close()
        self.over.set()


@asynccontextmanager
async def answering(process: Answering) -> AsyncIterator[Target]:
    server = await asyncio.start_server(process, "127.0.0.1", 0)
    async with server, asyncio.timeout(30):
        yield Target(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", {"replica": "odd"})
        await process.over.wait()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
BODY = b"# TYPE requests counter\nrequests_total 1.0\n"


async def test_every_process_is_read_in_the_order_of_the_list() -> None:
    processes = [Process() for _ in range(3)]
    with ExitStack() as servers:
        targets = []
        for number, process in enumerate(processes):
            process.held.set(number)
            targets.append(Target(servers.enter_context(serving(process)), {}))
        assert await read_all(targets) == [process.text for process in processes]
    assert await read_all([]) == []


@pytest.mark.parametrize(
    "process",
    [
        Answering(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY),
        Answering(b"HTTP/1.1 204 No Content\r\n\r\n"),
        Answering(b"SSH-2.0-OpenSSH_9.6\r\n"),
        Answering(b""),
        Answering(OK % 10_000, b"#" * 10_000),
        Answering(b"", b"HTTP/1.1 200 OK\r\n" * 1_000),
    ],
    ids=["500", "204", "no HTTP", "hangs up", "drips a body", "drips a head"],
)
async def test_a_process_without_a_good_answer_in_time_is_left_out(
    process: Answering, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte of one that drips comes in time; the whole answer would take minutes."""
    monkeypatch.setattr(exposition, "_ANSWER_WITHIN_S", 1.0)
    good = Process()
    with serving(good) as address:
        async with answering(process) as odd:
            assert await read_all([odd, Target(address, {})]) == [good.text]
    assert process.sent < 1_000
    (record,) = [record for record in caplog.records if record.name == exposition.__name__]
    assert record.getMessage() == f"the metrics of {odd.address} {{'replica': 'odd'}} are not in the sum"


async def test_a_slow_process_that_is_in_time_is_in_the_sum() -> None:
    async with answering(Answering(OK % len(BODY), BODY)) as target:
        assert await read_all([target]) == [BODY.decode()]


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    process = Process()
    with serving(process) as address:
        assert await read_all([Target(address, {})]) == [process.text]


async def test_a_process_on_its_own_lists_none() -> None:
    assert await OwnProcess().find("topfive") == []


def test_a_process_serves_its_metrics_on_a_port_of_its_own() -> None:
    before = {thread.name for thread in threading.enumerate()}
    address = serve_metrics("127.0.0.1")
    assert "topfive_requests_total" in httpx.get(f"http://{address}/metrics", trust_env=False).text
    started = [t for t in threading.enumerate() if t.name not in before]
    # It must not keep a process from ending.
    assert all(thread.daemon for thread in started)


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def test_a_process_may_ask_for_a_key() -> None:
    asked: list[list[tuple[bytes, bytes]]] = []

    def may_read(headers: list[tuple[bytes, bytes]]) -> bool:
        asked.append(headers)
        return (b"x-api-key", b"k") in headers

    address = serve_metrics("127.0.0.1", may_read)
    async with httpx.AsyncClient(trust_env=False) as client:
        for path in ("/metrics", "/", "/anything"):
            refused = await client.get(f"http://{address}{path}", headers={"Authorization": "Bearer x"})
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="topfive"')
            assert "topfive_" not in refused.text
        assert asked[0] == [(b"authorization", b"Bearer x")]
        allowed = await client.get(f"http://{address}/metrics", headers={"X-API-Key": "k"})
        assert (allowed.status_code, "topfive_" in allowed.text) == (200, True)
    # Whoever may read one process may read the sum.
    target = Target(address, {})
    assert [await read_all([target]), len(await read_all([target], {"x-api-key": "k"}))] == [[], 1]
