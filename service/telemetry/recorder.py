"""Counts what happens: ``RequestMetrics`` in an ingress, ``PredictorMetrics`` for one checkpoint's predictor.

Series are looked up once and kept, because ``labels()`` costs more than counting. Every combination of labels that can
occur begins at 0: ``rate()`` would not see the first error of a series that begins with it.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Sequence

from models.checkpoints.catalogue import Checkpoint
from service.domain.decision import Decision
from service.domain.ensemble import LEAST_MEMBERS, PREFIX
from service.domain.outcome import GONE, NO_MODEL, OK, PARTIAL, SEVERAL, Outcome, status_of
from service.telemetry import metrics
from service.telemetry.gauges import Reading, watch
from service.telemetry.series import Counter, CounterSeries

#: The label of every ensemble: callers choose the members, and a label must have few values.
ENSEMBLE = PREFIX.removesuffix(":")
#: Reasons that a request can have before its checkpoint is known, and after.
_BEFORE = (
    "bad-parameter", "bad-body", "no-picture", "body-too-large", "slow-body", "unknown-model", "weights-missing",
    "no-model-fits", "overloaded", "deadline-missed", "load-failed", "weights-damaged", "out-of-memory", "not-ready",
    "internal", "unauthorized", "role-too-small", "rate-limited", GONE,
)  # fmt: skip
_AFTER = (
    OK, "bad-body", "no-picture", "unsupported-format", "undecodable", "too-many-pixels", "too-many-parts",
    "no-model-fits", "overloaded", "weights-missing", "weights-damaged", "load-failed", "out-of-memory", "not-ready",
    "deadline-missed", "internal", "rate-limited", GONE,
)  # fmt: skip
#: The reasons of ``_BEFORE`` that a picture can have too.
_BEFORE_A_PICTURE = (
    "bad-body",
    "no-picture",
    "weights-missing",
    "no-model-fits",
    "overloaded",
    "deadline-missed",
    "not-ready",
    "internal",
    "rate-limited",
    GONE,
)
#: A picture that was dropped for its deadline counts as late, even if it was dropped before the deadline.
_LATE = 1.001


class RequestMetrics:
    """The metrics of one ingress.

    Args:
        variants: names of the variants that may answer.
    """

    def __init__(self, variants: Iterable[str]) -> None:
        self._in_flight = 0
        watch(self)
        self._answered: dict[str, _Answered] = {}
        self._requests, self._pictures = _Outcomes(metrics.REQUESTS), _Outcomes(metrics.PICTURES)
        self._accuracy_debt = metrics.ACCURACY_DEBT.labels()
        self._shed = {by: metrics.SHED.labels(by) for by in metrics.SHED_BY}
        for reason in _BEFORE:
            self._requests.begin(NO_MODEL, reason)
        for reason in _BEFORE_A_PICTURE:
            self._pictures.begin(NO_MODEL, reason)
        for model, reason in ((SEVERAL, OK), (SEVERAL, PARTIAL), (NO_MODEL, PARTIAL)):
            self._requests.begin(model, reason)
        # Bulk answers of several networks, or of problems only.
        self._mixed = {model: metrics.REQUEST_SECONDS.labels(model) for model in (NO_MODEL, SEVERAL)}
        names = list(variants)
        for name in (*names, ENSEMBLE) if len(names) >= LEAST_MEMBERS else names:
            self._series(name)

    def arrived(self) -> None:
        """Counts a request that has come; ``left`` must follow."""
        self._in_flight += 1

    def left(self, request: Outcome, pictures: Sequence[Outcome], took_s: float) -> None:
        """Counts a request that is over, ``took_s`` after the end of its body."""
        self._in_flight -= 1
        self._requests.count(request)
        for picture in pictures:
            self._pictures.count(picture)
        if status_of(request.reason) == 200:
            mixed = self._mixed.get(request.model)
            (mixed or self._series(request.model).request).observe(took_s)

    def routed(self, decision: Decision) -> None:
        """Counts the decision for a picture."""
        self._series(decision.checkpoint.model).routed[decision.routed_for].inc()
        if decision.accuracy_debt is not None:
            self._accuracy_debt.observe(decision.accuracy_debt)

    def shed(self, by: str) -> None:
        """Counts a picture that is not classified because of the load, by one of ``metrics.SHED_BY``."""
        self._shed[by].inc()

    def answered(self, model: str, decode_s: float, queue_s: float, forward_s: float) -> None:
        """Counts a picture that was classified, and the times of its phases."""
        series = self._series(model)
        series.decode.observe(decode_s)
        series.queue.observe(queue_s)
        series.forward.observe(forward_s)

    def kept(self, model: str, used_ratio: float, *, late: bool) -> None:
        """Counts how much of its allowed time a picture took; ``late`` if it was dropped for its deadline."""
        self._series(model).budget.observe(max(used_ratio, _LATE) if late else used_ratio)

    def predicted(self, model: str, ratio: float) -> None:
        """Counts the actual over the predicted time of a picture."""
        self._series(model).ratio.observe(ratio)

    def readings(self) -> Iterator[Reading]:
        """See ``gauges.Source``."""
        yield Reading("topfive_in_flight", self._in_flight)

    def _series(self, model: str) -> _Answered:
        found = self._answered.get(model)
        if found is None and model.startswith(PREFIX):
            return self._series(ENSEMBLE)
        if found is None:
            found = self._answered[model] = _Answered(model)
            for reason in _AFTER:
                self._requests.begin(model, reason)
                self._pictures.begin(model, reason)
            self._requests.begin(model, PARTIAL)
        return found


class PredictorMetrics:
    """The metrics of one checkpoint's predictor."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        model = checkpoint.variant.name
        self._batch_size = metrics.BATCH_SIZE.labels(model)
        self._batches = {cut: metrics.BATCHES.labels(model, cut) for cut in metrics.CUTS}
        self._device_s = metrics.DEVICE_SECONDS.labels(model)
        self._profiled_s = metrics.PROFILED_SECONDS.labels(model)
        self._load_s = metrics.LOAD_SECONDS.labels(model)
        self._loads = {result: metrics.LOADS.labels(model, result) for result in metrics.RESULTS}
        self._evictions = {reason: metrics.EVICTIONS.labels(model, reason) for reason in metrics.EVICTED_FOR}

    def batch(self, size: int, cut: str, took_s: float, profiled_s: float | None) -> None:
        """Counts a forward pass that gave answers; ``profiled_s`` is its duration by the profile, if there is one."""
        self._batch_size.observe(size)
        self._batches[cut].inc()
        self._device_s.inc(took_s)
        if profiled_s is not None:
            self._profiled_s.inc(profiled_s)

    def loaded(self, took_s: float, *, woken: bool = False) -> None:
        """Counts a load that succeeded; ``woken`` if it was from parked weights."""
        self._load_s.observe(took_s)
        self._loads["woken" if woken else "ok"].inc()

    def not_loaded(self) -> None:
        """Counts a load that failed."""
        self._loads["failed"].inc()

    def evicted(self, reason: str) -> None:
        """Counts that the checkpoint has left memory, by one of ``metrics.EVICTED_FOR``."""
        self._evictions[reason].inc()


class _Answered:
    """The series of one model in an ingress."""

    def __init__(self, model: str) -> None:
        self.request = metrics.REQUEST_SECONDS.labels(model)
        self.decode = metrics.DECODE_SECONDS.labels(model)
        self.queue = metrics.QUEUE_SECONDS.labels(model)
        self.forward = metrics.FORWARD_SECONDS.labels(model)
        self.budget = metrics.BUDGET_USED.labels(model)
        self.ratio = metrics.PREDICTED_RATIO.labels(model)
        self.routed = {reason: metrics.ROUTED.labels(model, reason) for reason in metrics.ROUTED_FOR}


class _Outcomes:
    """A counter with the labels model, status and reason."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._series: dict[Outcome, CounterSeries] = {}

    def begin(self, model: str, reason: str) -> CounterSeries:
        outcome = Outcome(model, reason)
        series = self._counter.labels(model, str(status_of(reason)), reason)
        self._series[outcome] = series
        return series

    def count(self, outcome: Outcome) -> None:
        series = self._series.get(outcome)
        if series is None and outcome.model.startswith(PREFIX):
            self.count(outcome._replace(model=ENSEMBLE))
        else:
            (series or self.begin(*outcome)).inc()


def set_build_info() -> None:
    """Sets ``topfive_build_info`` to the versions in this process."""
    metrics.BUILD_INFO.labels(
        importlib.metadata.version("topfive"),
        platform.python_version(),
        *(importlib.metadata.version(name) for name in ("torch", "onnxruntime", "ray")),
    ).set(1)
