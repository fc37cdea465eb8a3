"""OpenTelemetry spans. Off by default: ``--tracing`` turns them on, and the extra ``tracing`` must be installed.

A request is a trace, or a part of its caller's trace:

    POST /classify                      the request, in the ingress
      picture                           each of several pictures; a single picture has no span of its own
        load, decode, queue, forward    the picture in its predictor: ``picture_spans.py``

OpenTelemetry's own environment variables say where spans go (``OTEL_EXPORTER_OTLP_ENDPOINT``), which requests have
them (``OTEL_TRACES_SAMPLER``) and what the service is called there (``OTEL_SERVICE_NAME``). Each process sends its own
spans, in OTLP over HTTP. A request that is not sampled has no spans below it either, so that it costs next to nothing.

Only this file imports OpenTelemetry, and only where tracing is on.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from service.config.settings import Settings
from service.domain.outcome import GONE, OK, Outcome, status_of

if TYPE_CHECKING:
    from fastapi import Request
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext

Result = TypeVar("Result")

#: Added to ``time.monotonic()``, on which everything here is measured, it gives the time of day.
_EPOCH_NS = time.time_ns() - time.monotonic_ns()
#: How long a stop waits for the last spans to be sent.
_FLUSH_WITHIN_S = 2.0
#: The span that the current work belongs to, if there is one. A context variable, so that predictors take the same
#: arguments with and without tracing.
_here: ContextVar[SpanContext | None] = ContextVar("_here", default=None)
#: The tracing of this process, if it is on.
_active: Tracing | None = None


class TracingError(RuntimeError):
    """Tracing is on, but spans cannot be made or sent."""


def check_tracing() -> None:
    """Raises TracingError if OpenTelemetry is not installed or its environment variables are invalid."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        OTLPSpanExporter().shutdown()  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise TracingError(f"tracing needs OpenTelemetry: pip install -e '.[tracing]' ({error})") from error
    except ValueError as error:
        raise TracingError(f"OpenTelemetry's environment (OTEL_*) is wrong: {error}") from error


def start_tracing(settings: Settings) -> Callable[[], None]:
    """Turns tracing on in this process, if the settings say so.

    Returns: a function that turns it off and sends the remaining spans.

    Raises:
        TracingError: see ``check_tracing``.
    """
    return trace_to(_over_otlp()) if settings.tracing else lambda: None


def trace_to(provider: TracerProvider) -> Callable[[], None]:
    """Turns tracing on in this process, with a given provider. Returns a function that turns it off."""
    global _active
    mine = _active = Tracing(provider)

    def stop() -> None:
        global _active
        if _active is mine:
            _active = None
        # In a thread: without a collector the shutdown may take half a minute.
        flushing = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        flushing.start()
        flushing.join(_FLUSH_WITHIN_S)

    return stop


def tracing() -> Tracing | None:
    """The tracing of this process; None if it is off."""
    return _active


def here() -> SpanContext | None:
    """The span that the current work belongs to, if it is sampled."""
    return _here.get()


def traceparent() -> str | None:
    """``here`` as the W3C header ``traceparent``, for another process."""
    place = _here.get()
    return None if place is None else f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"


@contextmanager
def continued(traceparent: str | None) -> Iterator[None]:
    """Lets the work in the block belong to a span of another process, given as a W3C header ``traceparent``."""
    if traceparent is None or _active is None:
        yield
        return
    with _at(_active.parsed(traceparent)):
        yield


@contextmanager
def _at(place: SpanContext | None) -> Iterator[None]:
    before = _here.set(place)
    try:
        yield
    finally:
        _here.reset(before)


class Tracing:
    """Makes the spans of a process.

    Args:
        provider: an OpenTelemetry provider; the caller who made it shuts it down.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._otel = trace
        self._w3c = TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer("topfive", importlib.metadata.version("topfive"))

    def request(self, request: Request, arrived: float) -> RequestSpan:
        """Begins the span of a ``POST /classify``, as a part of the caller's trace if there is one."""
        attributes = {
            "http.request.method": request.method,
            "http.route": request.url.path,
            "url.path": request.url.path,
            "url.scheme": request.url.scheme,
        }
        request_id = request.headers.get("x-request-id")
        if request_id is not None:
            attributes["topfive.request_id"] = request_id
        span = self._tracer.start_span(
            f"{request.method} {request.url.path}",
            self._w3c.extract(request.headers),
            self._otel.SpanKind.SERVER,
            attributes,
            start_time=epoch_ns(arrived),
        )
        return RequestSpan(self, span)

    def begun(
        self,
        name: str,
        parent: SpanContext,
        started: float,
        attributes: Mapping[str, str | int],
        links: Sequence[SpanContext] = (),
    ) -> Span:
        """Begins a span, which ``close`` must end."""
        return self._tracer.start_span(
            name,
            self._otel.set_span_in_context(self._otel.NonRecordingSpan(parent)),
            attributes=attributes,
            links=[self._otel.Link(place) for place in links],
            start_time=epoch_ns(started),
        )

    def told(
        self,
        name: str,
        parent: SpanContext,
        times: tuple[float, float],
        attributes: Mapping[str, str | int],
        *,
        reason: str = OK,
        links: Sequence[SpanContext] = (),
        error: Exception | None = None,
    ) -> SpanContext:
        """Makes a span of work that is over.

        Args:
            name: the operation.
            parent: the span that the work belongs to.
            times: its beginning and end, on ``time.monotonic()``.
            attributes: the span's attributes.
            reason: its outcome, as in ``Outcome.reason``.
            links: other spans that the work was done for.
            error: an exception whose traceback the span gets; only operators see it, never the client.
        """
        span = self.begun(name, parent, times[0], attributes, links)
        if error is not None:
            span.record_exception(error, timestamp=epoch_ns(times[1]))
        self.close(span, reason, times[1])
        return span.get_span_context()

    def close(self, span: Span, reason: str, ended: float) -> None:
        """Ends a span. Only statuses of 500 and above are errors: OpenTelemetry asks servers not to mark a client's
        mistakes as such."""
        if reason != OK:
            span.set_attribute("topfive.reason", reason)
        if status_of(reason) >= 500:
            span.set_attribute("error.type", reason)
            span.set_status(self._otel.StatusCode.ERROR, reason)
        span.end(epoch_ns(ended))

    def parsed(self, traceparent: str) -> SpanContext | None:
        """The span that a W3C header ``traceparent`` names; None if it is invalid or not sampled."""
        place = self._otel.get_current_span(self._w3c.extract({"traceparent": traceparent})).get_span_context()
        return place if place.is_valid and place.trace_flags.sampled else None


class RequestSpan:
    """The span of one request. What the same task does until ``end`` belongs to it."""

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        place = span.get_span_context()
        self.trace_id = f"{place.trace_id:032x}"
        self._place = place if place.trace_flags.sampled else None
        self._before = _here.set(self._place)

    async def picture(
        self, index: int, classify: Callable[[], Awaitable[Result]], outcome_of: Callable[[Result], Outcome]
    ) -> Result:
        """Classifies one of several pictures, in a task of its own, under a span of its own."""
        if self._place is None:
            return await classify()
        span = self._tracing.begun("picture", self._place, time.monotonic(), {"topfive.picture": index})
        reason = GONE
        try:
            with _at(span.get_span_context()):
                result = await classify()
            outcome = outcome_of(result)
            reason = outcome.reason
            span.set_attribute("topfive.model", outcome.model)
            return result
        finally:
            self._tracing.close(span, reason, time.monotonic())

    def end(self, outcome: Outcome) -> None:
        """Ends the span with the request's outcome."""
        _here.reset(self._before)
        self._span.set_attribute("topfive.model", outcome.model)
        self._span.set_attribute("topfive.reason", outcome.reason)
        self._span.set_attribute("http.response.status_code", status_of(outcome.reason))
        self._tracing.close(self._span, outcome.reason, time.monotonic())


def epoch_ns(seconds: float) -> int:
    """Converts a time on ``time.monotonic()`` to nanoseconds since 1970, as spans have it."""
    return int(seconds * 1e9) + _EPOCH_NS


def _over_otlp() -> TracerProvider:
    check_tracing()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = {"service.name": "topfive", "service.version": importlib.metadata.version("topfive")}
    # Attributes given to ``create`` win over the environment; the last ones are the environment's, so that it wins.
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
