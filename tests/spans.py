"""Keeps the spans of this process instead of sending them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.telemetry.tracing import trace_to, tracing


class Spans:
    """The finished spans, and how they belong together."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    @property
    def requests(self) -> list[ReadableSpan]:
        return self.named("POST /classify")

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """The children of a span, in the order of time."""
        spans = self._exporter.get_finished_spans()
        found = [span for span in spans if span.parent is not None and span.parent.span_id == parent.context.span_id]
        return sorted(found, key=lambda span: (span.start_time, span.end_time))

    def tree(self, parent: ReadableSpan) -> list[tuple[str, str | None]]:
        """The names of a span's children, each with the reason that it failed for, if it did."""
        return [(span.name, span.attributes.get("topfive.reason")) for span in self.below(parent)]

    def __len__(self) -> int:
        return len(self._exporter.get_finished_spans())


@contextmanager
def traced() -> Iterator[Spans]:
    """Turns tracing on during the block."""
    found = Spans()
    stop = trace_to(found.provider)
    yield found
    stop()
    assert tracing() is None
