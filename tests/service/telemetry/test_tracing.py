"""Tracing: turning it on, continuing a trace in a replica, and sending spans."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import Context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import StatusCode
from typer.testing import CliRunner

from models.checkpoints.catalogue import Catalogue
from service.cluster.remote import RemotePredictor
from service.cluster.replica import Replica
from service.commands.main import app
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.domain.outcome import Outcome
from service.domain.prediction import Limits, Prediction
from service.engines.fake import FakeEngine
from service.runtime.placement import LocalPlacement
from service.telemetry import tracing as module
from service.telemetry.logs import access_log
from service.telemetry.tracing import continued, here, start_tracing, trace_to, traceparent, tracing
from tests.fakes import Fakes
from tests.pictures import picture
from tests.spans import Spans, traced

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROOT = Path(__file__).parents[3]
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


OFF = """
import asyncio, pathlib, sys, tempfile
from tests.fakes import Fakes
from tests.pictures import picture

async def main():
    async with Fakes(pathlib.Path(tempfile.mkdtemp())).client() as client:
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200

asyncio.run(main())
assert "service.runtime.predictor" in sys.modules
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""


def test_the_sdk_is_not_imported_while_tracing_is_off() -> None:
    """The SDK and its exporters; FastAPI itself imports OpenTelemetry's interface."""
    ran = subprocess.run([sys.executable, "-c", OFF], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


def test_tracing_is_off_by_default() -> None:
    stop = start_tracing(Settings())
    assert tracing() is None
    stop()


def request(**headers: str) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/classify", "scheme": "http", "headers": raw}
    return Request({**scope, "server": ("localhost", 80), "query_string": b""})


@pytest.mark.parametrize("sampled", [True, False])
def test_work_belongs_to_a_request_until_its_end(sampled: bool) -> None:
    caller = CALLER if sampled else CALLER[:-1] + "0"
    with traced() as spans:
        making = tracing()
        assert making is not None
        span = making.request(request(traceparent=caller), time.monotonic())
        place = here()
        assert (place is not None) == sampled == (traceparent() is not None)
        span.end(Outcome("lenet5", "ok"))
        assert here() is traceparent() is None
    assert len(spans.requests) == sampled


def test_a_traceparent_leads_back_to_the_same_span() -> None:
    with traced(), continued(CALLER):
        assert traceparent() == CALLER
    assert traceparent() is None
    # A caller that does not sample, and junk, lead nowhere.
    with traced():
        for other in (CALLER[:-1] + "0", "junk", None):
            with continued(other):
                assert here() is None


def test_the_end_of_an_older_tracing_leaves_the_newer_one_on() -> None:
    older, newer = Spans(), Spans()
    stop_older, stop_newer = trace_to(older.provider), trace_to(newer.provider)
    stop_older()
    assert tracing() is not None
    stop_newer()
    assert tracing() is None


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("ok", StatusCode.UNSET),
        ("gone", StatusCode.UNSET),
        ("overloaded", StatusCode.UNSET),
        ("internal", StatusCode.ERROR),
    ],
)
def test_only_statuses_from_500_on_are_errors(reason: str, status: StatusCode) -> None:
    with traced() as spans:
        making = tracing()
        assert making is not None
        place = making.parsed(CALLER)
        assert place is not None
        making.told("work", place, (1.0, 2.5), {"a": 1}, reason=reason)
    (span,) = spans.named("work")
    assert span.status.status_code is status
    assert span.attributes.get("error.type") == (reason if status is StatusCode.ERROR else None)
    assert span.attributes.get("topfive.reason") == (None if reason == "ok" else reason)
    assert (span.attributes["a"], span.end_time - span.start_time) == (1, 1_500_000_000)


class Kept(logging.Handler):
    """Keeps log records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def test_the_log_line_of_a_request_leads_to_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    monkeypatch.setattr(access_log, "handlers", [kept])
    before = access_log.level
    access_log.setLevel(logging.INFO)
    fakes = Fakes(tmp_path)
    fakes.settings = Settings(cache_dir=tmp_path, access_log=True)
    with traced() as spans:
        async with fakes.client() as client:
            await client.post("/classify?model=lenet5", content=picture())
    async with fakes.client() as client:
        await client.post("/classify?model=lenet5", content=picture())
    access_log.setLevel(before)
    on, off = (record.fields for record in kept.records)
    assert on["trace_id"] == f"{spans.requests[0].context.trace_id:032x}"
    assert "trace_id" not in off


class Crossing:
    """A Serve handle of a host whose calls run in another context, as in another process."""

    def __init__(self, host: Replica) -> None:
        self._host = host
        self.predict = SimpleNamespace(remote=self._predict)
        self.crossed: list[tuple[Any, ...]] = []

    async def _predict(self, *arguments: Any) -> Any:
        self.crossed.append(arguments)
        return await asyncio.create_task(self._host.predict(*arguments), context=Context())


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """A replica that hosts one network with a fake engine."""
    placement = LocalPlacement(FakeEngine, Limits())
    monkeypatch.setattr("service.assembly.local.local_placement", lambda *_: placement)
    monkeypatch.setattr("service.cluster.replica.configure_logging", lambda _format: None)
    yield Replica(Settings(cache_dir=tmp_path, untrained=True), Deployment(variants=["lenet5"]))
    await placement.close()


async def test_a_trace_continues_in_a_replica(host: Replica) -> None:
    far = Crossing(host)
    near = RemotePredictor(Catalogue(untrained=True).find("lenet5"), far)
    with traced() as spans:
        with continued(CALLER):
            assert isinstance(await near.predict(picture(), time.monotonic() + 30), Prediction)
        # Whoever is not traced sends nothing more than before.
        assert isinstance(await near.predict(picture(), time.monotonic() + 30), Prediction)
    assert [arguments[3:] for arguments in far.crossed] == [(CALLER,), ()]
    phases = [span for name in ("decode", "queue", "forward") for span in spans.named(name)]
    assert len(phases) == 3
    for span in phases:
        assert f"{span.context.trace_id:032x}-{span.parent.span_id:016x}" == CALLER[3:-3]
        assert span.parent.is_remote


async def test_a_replica_without_tracing_answers_traced_requests(host: Replica) -> None:
    assert isinstance(await host.predict(picture(), "lenet5@untrained", 30.0, CALLER), Prediction)
    assert tracing() is None


@contextmanager
def collector(*, answers: bool = True) -> Iterator[tuple[str, list[tuple[str, ExportTraceServiceRequest]]]]:
    """A collector of spans: its address, and what it has received."""
    came: list[tuple[str, ExportTraceServiceRequest]] = []
    over = threading.Event()

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not answers:
                over.wait(30)
            came.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        over.set()
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize(
    ("environment", "service"),
    [({}, "topfive"), ({"OTEL_SERVICE_NAME": "pictures"}, "pictures")],
    ids=["ours", "given"],
)
async def test_spans_leave_in_otlp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], service: str
) -> None:
    with collector() as (url, came):
        for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **environment}.items():
            monkeypatch.setenv(name, value)
        stop = start_tracing(Settings(tracing=True))
        async with Fakes(tmp_path).client() as client:
            await client.post("/classify?model=lenet5", content=picture())
        stop()
    assert {path for path, _ in came} == {"/v1/traces"}
    (resource,) = [resource for _, request in came for resource in request.resource_spans]
    names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert names["service.name"] == service
    sent = sorted(span.name for scope in resource.scope_spans for span in scope.spans)
    assert sent == ["POST /classify", "decode", "forward", "queue"]


def test_a_stop_does_not_wait_for_a_collector_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLUSH_WITHIN_S", 0.05)
    with collector(answers=False) as (url, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        stop = start_tracing(Settings(tracing=True))
        making = tracing()
        assert making is not None
        place = making.parsed(CALLER)
        assert place is not None
        making.told("forward", place, (0.0, 1.0), {})
        stop()
        assert came == []
        flushing = next(thread for thread in threading.enumerate() if thread.name == "last-spans")
    flushing.join(30)
    assert len(came) == 1


def serve(monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[Any, list[Settings]]:
    started: list[Settings] = []
    monkeypatch.setattr("service.lifecycle.supervisor.serve", lambda settings, _console: started.append(settings))
    return CliRunner().invoke(app, ["serve", *options]), started


def test_without_opentelemetry_tracing_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    result, started = serve(monkeypatch, "--tracing")
    assert (result.exit_code, started) == (1, [])
    assert "pip install -e '.[tracing]'" in " ".join(result.output.split())
    result, started = serve(monkeypatch, "--no-tracing")
    assert (result.exit_code, [settings.tracing for settings in started]) == (0, [False])


def test_an_option_or_the_environment_turns_tracing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve(monkeypatch)[1][0].tracing is False
    assert serve(monkeypatch, "--tracing")[1][0].tracing is True
    monkeypatch.setenv("TOPFIVE_TRACING", "true")
    assert serve(monkeypatch)[1][0].tracing is True
