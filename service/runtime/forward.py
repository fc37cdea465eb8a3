"""Forward passes of a checkpoint as the batcher wants them: pictures in, an output for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from service.engines import Engine, OverlappingEngine, TopK
from service.runtime.decoding import Crop

T = TypeVar("T")
#: Probabilities and class numbers of one picture, most probable first; and the probabilities of all classes, where they
#: are wanted, as ``Prediction.distribution`` has them.
Top: TypeAlias = tuple[tuple[float, ...], tuple[int, ...], bytes | None]


class Ask(NamedTuple):
    """A picture in the queue."""

    crop: Crop
    whole: bool
    """The probabilities of all classes are wanted, for an average."""


class Passes:
    """Of the engine that is loaded, if one is."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._overlapping: OverlappingEngine | None = None

    def use(self, engine: Engine | None) -> Engine | None:
        """From now on another engine, or none; gives the one before."""
        before, self._engine = self._engine, engine
        self._overlapping = engine if isinstance(engine, OverlappingEngine) else None
        return before

    def run(self, asks: Sequence[Ask]) -> list[Top]:
        """A whole forward pass. Blocks."""
        assert self._engine is not None
        return _rows(self._engine.run(*_batch(asks)), asks)

    def beginning(self) -> Callable[[Sequence[Ask]], Callable[[], list[Top]]] | None:
        """What begins a forward pass while another is computed; None if the engine cannot."""
        return None if self._overlapping is None else self._begin

    def _begin(self, asks: Sequence[Ask]) -> Callable[[], list[Top]]:
        engine = self._overlapping
        assert engine is not None
        batch = engine.submit(*_batch(asks))
        return lambda: _rows(engine.collect(batch), asks)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What comes of blocking work, and its seconds: the wait for the thread that it runs on is no part of them."""
    started = time.monotonic()
    return work(), time.monotonic() - started


def _batch(asks: Sequence[Ask]) -> tuple[npt.NDArray[np.uint8], bool]:
    """What an engine takes: whole distributions are fetched only where one of the batch wants its own."""
    return np.stack([ask.crop for ask in asks]), any(ask.whole for ask in asks)


def _rows(top: TopK, asks: Sequence[Ask]) -> list[Top]:
    wholes: list[bytes | None] = [None] * len(asks)
    if top.distributions is not None:
        wholes = [row.tobytes() if ask.whole else None for row, ask in zip(top.distributions, asks, strict=True)]
    return [
        (tuple(probabilities), tuple(indices), whole)
        for probabilities, indices, whole in zip(top.probabilities.tolist(), top.indices.tolist(), wholes, strict=True)
    ]
