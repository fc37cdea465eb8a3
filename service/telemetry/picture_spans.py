"""The spans of one picture in its predictor: ``load`` if it had to wait for one, ``decode``, ``queue``, ``forward``.

A forward pass belongs to many traces at once, but viewers (Jaeger, Tempo) show one trace. Therefore each picture has a
``forward`` span in its own trace. The span of the first traced picture stands for the batch: it links to all traced
pictures of the batch, and the ``forward`` spans of the others link to it. If the batch had a trace of its own, that
would be sampled separately, and most links would lead nowhere.

A forward pass that fails is an error in each trace; the pass that is run after it is a ``forward`` span again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.domain.errors import Failure, failure_of
from service.domain.outcome import GONE, OK
from service.domain.prediction import Prediction
from service.telemetry.tracing import Tracing, here, tracing

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


def phases_here(model: str) -> Phases | None:
    """The phases of a picture that is about to be predicted; None unless its request is traced."""
    place = here()
    if place is None:
        return None
    making = tracing()
    return None if making is None else Phases(making, place, model)


class Phases:
    """The phases of one picture. They are noted as they happen and become spans at the end: making a span costs more
    time than a batch that waits for the device can spare."""

    def __init__(self, making: Tracing, place: SpanContext, model: str) -> None:
        self.making = making
        self.place = place
        self.model = model
        self._phases: list[_Phase] = []

    def begin(self, name: str, at: float) -> None:
        """Begins a phase, and ends the one before it unless that has ended."""
        if self._phases and self._phases[-1].ended is None:
            self._phases[-1].ended = at
        self._phases.append(_Phase(name, at))

    def over(self, at: float) -> None:
        """Ends the phase; the next one may begin a little later."""
        self._phases[-1].ended = at

    def queued(self, at: float) -> None:
        """The picture waits for the device."""
        self.begin("queue", at)

    def taken(self, at: float) -> None:
        """The picture's forward pass begins."""
        self.begin("forward", at)

    def forwarded(self, at: float, batch: SpanContext | None, reason: str, attributes: Mapping[str, str | int]) -> None:
        """The picture's forward pass is over. ``batch`` is the span that stands for it; None if that is this
        picture's own."""
        phase = self._phases[-1]
        phase.ended, phase.reason, phase.attributes = at, reason, attributes
        phase.told, phase.links = batch is None, () if batch is None else (batch,)

    def end(self, outcome: Prediction | Failure | None) -> None:
        """Makes the spans. A phase that has not ended gets the outcome; None means that the caller has gone."""
        last = outcome.slug if isinstance(outcome, Failure) else GONE if outcome is None else OK
        now = time.monotonic()
        for phase in self._phases:
            if phase.told:
                continue
            reason, ended = (last, now) if phase.ended is None else (phase.reason, phase.ended)
            attributes = {"topfive.model": self.model, **phase.attributes}
            self.making.told(
                phase.name, self.place, (phase.started, ended), attributes, reason=reason, links=phase.links
            )


@dataclass(slots=True)
class _Phase:
    name: str
    started: float
    ended: float | None = None
    reason: str = OK
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    links: Sequence[SpanContext] = ()
    told: bool = False


def forward_over(traces: Sequence[object], cut: str, started: float, took_s: float, error: Exception | None) -> None:
    """Notes a forward pass at the traced pictures of its batch, and makes the span that stands for it.

    Args:
        traces: for each picture of the batch, its ``Phases`` if it is traced.
        cut: what ended the batch, one of ``metrics.CUTS``.
        started: when the pass began, on ``time.monotonic()``.
        took_s: how long it took.
        error: why it failed; None if it did not.
    """
    traced = [trace for trace in traces if isinstance(trace, Phases)]
    if not traced:
        return
    first, ended = traced[0], started + took_s
    reason = OK if error is None else failure_of(error).slug
    attributes: dict[str, str | int] = {"topfive.batch.size": len(traces), "topfive.batch.cut": cut}
    batch = first.making.told(
        "forward",
        first.place,
        (started, ended),
        {"topfive.model": first.model, **attributes},
        reason=reason,
        links=[phases.place for phases in traced],
        error=error,
    )
    for phases in traced:
        phases.forwarded(ended, None if phases is first else batch, reason, attributes)
