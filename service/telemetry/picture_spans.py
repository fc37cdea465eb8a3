"""The spans of one picture where its predictor is: ``load`` if it had to wait for one, ``decode``, ``queue``,
``forward``.

A forward pass is of many traces at once, and viewers (Jaeger, Tempo) show one. So each picture has a ``forward`` in its
own trace, whose waterfall is whole therefore. One of a batch, the first traced picture's, is the batch's own: it has
links to all of them, and every other ``forward`` has a link to it, so that any trace leads to the batch, and the batch
to every trace. In a trace of its own it would be sampled by itself, and most links would lead nowhere.

A pass that fails is an error in each trace; the pass that is run after it is ``forward`` again.
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
    """For a picture that is about to be predicted; None unless its request is traced."""
    place = here()
    if place is None:
        return None
    making = tracing()
    return None if making is None else Phases(making, place, model)


class Phases:
    """What a picture has gone through. It is noted as it happens and told at the end, since a span costs more to make
    than a batch that waits for the device should pay."""

    def __init__(self, making: Tracing, place: SpanContext, model: str) -> None:
        self.making = making
        self.place = place
        self.model = model
        self._phases: list[_Phase] = []

    def begin(self, name: str, at: float) -> None:
        """The phase before is over, unless that is known already."""
        if self._phases and self._phases[-1].ended is None:
            self._phases[-1].ended = at
        self._phases.append(_Phase(name, at))

    def over(self, at: float) -> None:
        """The phase is over; the next may begin a little later."""
        self._phases[-1].ended = at

    def queued(self, at: float) -> None:
        """It waits for the device."""
        self.begin("queue", at)

    def taken(self, at: float) -> None:
        """Its forward pass begins."""
        self.begin("forward", at)

    def forwarded(self, at: float, batch: SpanContext | None, reason: str, attributes: Mapping[str, str | int]) -> None:
        """Its forward pass is over, of which ``batch`` is the span; None if that is this picture's own."""
        phase = self._phases[-1]
        phase.ended, phase.reason, phase.attributes = at, reason, attributes
        phase.told, phase.links = batch is None, () if batch is None else (batch,)

    def end(self, outcome: Prediction | Failure | None) -> None:
        """Nothing follows; None if its caller has gone. What is not over by then ends with it."""
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
    """Tells the traced pictures of a batch, and their traces, of its forward pass."""
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
