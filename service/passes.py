"""Forward passes of a checkpoint as the batcher wants them: pictures in, an output for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from service.decoding import Crop
from service.engines import Engine, OverlappingEngine, TopK

T = TypeVar("T")
#: Probabilities and class numbers of one picture, most probable first.
Top: TypeAlias = tuple[tuple[float, ...], tuple[int, ...]]


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

    def run(self, crops: Sequence[Crop]) -> list[Top]:
        """A whole forward pass. Blocks."""
        assert self._engine is not None
        return _rows(self._engine.run(np.stack(crops)))

    def beginning(self) -> Callable[[Sequence[Crop]], Callable[[], list[Top]]] | None:
        """What begins a forward pass while another is computed; None if the engine cannot."""
        return None if self._overlapping is None else self._begin

    def _begin(self, crops: Sequence[Crop]) -> Callable[[], list[Top]]:
        engine = self._overlapping
        assert engine is not None
        batch = engine.submit(np.stack(crops))
        return lambda: _rows(engine.collect(batch))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What comes of blocking work, and its seconds: the wait for the thread that it runs on is no part of them."""
    started = time.monotonic()
    return work(), time.monotonic() - started


def _rows(top: TopK) -> list[Top]:
    return [
        (tuple(probabilities), tuple(indices))
        for probabilities, indices in zip(top.probabilities.tolist(), top.indices.tolist(), strict=True)
    ]
