"""A simulated device: an engine that spends the time that a profile says, and computes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Checkpoint
from service.domain.prediction import MAX_K
from service.engines import TopK
from service.profiling.profiles import Profile
from service.twin.durations import Durations
from service.twin.loop import VirtualLoop


class SimulatedEngine:
    """An ``engines.Engine`` whose passes take what its profile says. Its answers are always the same.

    Args:
        checkpoint: whose network it stands for.
        profile: what passes take.
        loop: whose time passes.
        source: of random numbers.
        largest: the largest batch.
        spread: whether times are drawn; without it, each pass takes its mean.
        pace: what passes take, as a multiple of the profile.
        slower: how many times as long as in the profile a pass takes now.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        profile: Profile,
        loop: VirtualLoop,
        source: random.Random,
        largest: int,
        *,
        spread: bool = True,
        pace: float = 1.0,
        slower: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._pace = pace
        self._loop = loop
        self._slower = slower
        self._durations = Durations([*profile.forward.items()], largest, source, spread=spread)
        self._bytes = checkpoint.costs.params * 4
        self._answers = [
            TopK(np.full((size, MAX_K), 0.1, np.float32), np.tile(np.arange(MAX_K), (size, 1)))
            for size in range(largest + 1)
        ]
        self._threads = profile.fingerprint.threads

    @property
    def any_thread(self) -> bool:
        """As the engine that the profile was measured with: ONNX Runtime's may be called from any thread."""
        return self._threads > 0

    @property
    def bytes_held(self) -> int:
        return self._bytes

    def warm_up(self, largest: int) -> None:
        """Takes no time here: the profile's load ends with a warm engine."""

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        size = len(crops)
        self._loop.spend(self._pace * self._slower() * self._durations.draw(size), self._threads)
        return self._answers[size]

    def close(self) -> None:
        """Takes no time."""


def load(profile: Profile, loop: VirtualLoop, slower: float = 1.0) -> None:
    """Spends the time of a load, with the graph in the cache."""
    loop.spend(slower * profile.load_cached_ms / 1000)
