"""The forward passes of one checkpoint: what runs them, how long they should take, and what is learned from each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from service.batching.batcher import Batched
from service.batching.queue import Batch
from service.engines import Engine, OverlappingEngine, TopK
from service.inference.decoding import Crop
from service.profiling.forecast import Forecast
from service.runtime.arriving import Arriving
from service.telemetry.picture_spans import forward_over
from service.telemetry.recorder import PredictorMetrics

#: One picture's probabilities and class numbers, most probable first; and, where they were asked for, the probabilities
#: of all classes, as in ``Prediction.distribution``.
Output: TypeAlias = tuple[tuple[float, ...], tuple[int, ...], bytes | None]


#: A pass that takes no longer than this does not delay the event loop more than other work does. Handing it to a thread
#: and back takes as long, and longer while threads wait for the interpreter's lock.
_AT_ONCE_S = 0.00033


class Input(NamedTuple):
    """One picture's input to a forward pass."""

    crop: Crop
    whole: bool
    """Whether the probabilities of all classes are wanted, for an average."""


class ForwardPasses:
    """A checkpoint's forward passes, as the batcher needs them: a ``batching.batcher.BatchRunner``.

    Args:
        forecast: the expected duration of passes; corrected after each.
        arriving: the pictures that are not queued yet.
        metrics: where batches are counted.
    """

    def __init__(self, forecast: Forecast, arriving: Arriving, metrics: PredictorMetrics) -> None:
        self.forecast = forecast
        self._arriving = arriving
        self._metrics = metrics
        self._engine: Engine | None = None
        self._overlapping: OverlappingEngine | None = None
        self.overlaps = False
        """Whether the engine takes a batch while it computes another."""
        self._any_thread = False

    def use(self, engine: Engine | None) -> Engine | None:
        """Runs passes on another engine from now on, or on none. Returns the engine before."""
        before, self._engine = self._engine, engine
        self._overlapping = engine if isinstance(engine, OverlappingEngine) else None
        self.overlaps = self._overlapping is not None
        self._any_thread = engine is not None and engine.any_thread and not self.overlaps
        return before

    @property
    def arriving(self) -> int:
        """How many pictures will be queued soon."""
        return self._arriving.soon

    @property
    def forward_s(self) -> Sequence[float]:
        """The 95th percentile of a pass in seconds, by batch size."""
        return self.forecast.forward_s

    def expected_s(self, size: int) -> float:
        """The mean of a pass in seconds."""
        return self.forecast.expected_s(size)

    @property
    def alone_s(self) -> float:
        """The mean of a pass of one picture by the profile; infinite without one."""
        profiled_s = self.forecast.profiled_s(1)
        return math.inf if profiled_s is None else profiled_s

    def at_once(self, size: int) -> bool:
        """Whether a pass is so short, by its mean, that it runs on the event loop."""
        return self._any_thread and self.expected_s(size) <= _AT_ONCE_S

    def run(self, items: Sequence[Input]) -> list[Output]:
        """Runs a whole pass. Blocks."""
        assert self._engine is not None
        return _outputs(self._engine.run(*_stacked(items)), items)

    def begin(self, items: Sequence[Input]) -> Callable[[], list[Output]]:
        """Begins a pass, and returns a function that waits for its outputs."""
        engine = self._overlapping
        assert engine is not None
        batch = engine.submit(*_stacked(items))
        return lambda: _outputs(engine.collect(batch), items)

    def learn(
        self, batch: Batch[Input, Batched[Output]], started: float, seconds: float, error: Exception | None
    ) -> None:
        """Counts a pass that succeeded and corrects the forecast by it; tells the traces of its pictures in any
        case."""
        if error is None:
            size = len(batch.tickets)
            self._metrics.batch(size, batch.cut, seconds, self.forecast.profiled_s(size))
            self.forecast.learn(size, seconds)
        forward_over([ticket.trace for ticket in batch.tickets], batch.cut, started, seconds, error)


def _stacked(items: Sequence[Input]) -> tuple[npt.NDArray[np.uint8], bool]:
    """What an engine takes: the crops as one array, and whether to fetch whole distributions."""
    return np.stack([item.crop for item in items]), any(item.whole for item in items)


def _outputs(top: TopK, items: Sequence[Input]) -> list[Output]:
    wholes: list[bytes | None] = [None] * len(items)
    if top.distributions is not None:
        wholes = [row.tobytes() if item.whole else None for row, item in zip(top.distributions, items, strict=True)]
    return [
        (tuple(probabilities), tuple(indices), whole)
        for probabilities, indices, whole in zip(top.probabilities.tolist(), top.indices.tolist(), wholes, strict=True)
    ]
