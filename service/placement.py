"""Where predictors live. The HTTP layer asks for one by its checkpoint and does not care."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from models.checkpoints import Checkpoint
from service.device import DeviceSlot
from service.engines import Engine
from service.errors import Failure, NotReadyError
from service.forecast import Accuracy
from service.live import Reading, unwatch, watch
from service.prediction import Limits, Prediction
from service.predictor import Predictor
from service.profiles import Profile
from service.residency import Residency
from service.standing import Candidate, Load

log = logging.getLogger(__name__)


class Predicts(Protocol):
    """What the HTTP layer needs of a predictor, wherever it is."""

    async def predict(self, image: bytes, deadline: float, whole: bool = False) -> Prediction | Failure: ...


class Memory(NamedTuple):
    """A device's ledger: bytes."""

    device: str
    limit: int
    held: int


class Survey(NamedTuple):
    """Checkpoints and the load of their devices, as the router takes them."""

    candidates: list[Candidate]
    load: Load


class Placement(Protocol):
    """What the HTTP layer needs of all of them."""

    def predictor(self, checkpoint: Checkpoint) -> Predicts:
        """The predictor that serves a loadable checkpoint."""
        ...

    def resident(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is loaded and warm."""
        ...

    def serves(self, checkpoint: Checkpoint) -> bool:
        """Whether the router may pick this loadable checkpoint: it has a place, and is not known to be damaged."""
        ...

    def check_ready(self) -> None:
        """Raises NotReadyError, saying what is still being done, until the service is ready, and when it stops."""
        ...

    def survey(self, checkpoints: Sequence[Checkpoint], encoded_bytes: int, deadline: float = math.inf) -> Survey:
        """How checkpoints stand now, for a picture of that size with that deadline."""
        ...

    def judge(self, checkpoint: Checkpoint, predicted_s: float, actual_s: float, trial_s: float | None = None) -> None:
        """Says what became of a prediction; ``trial_s`` is what a picture was allowed that was let in on trial."""
        ...

    def accuracy(self, checkpoint: Checkpoint) -> Accuracy:
        """How good the last predictions for a checkpoint were."""
        ...

    def memory(self) -> list[Memory]:
        """The ledgers."""
        ...

    async def load(self, checkpoint: Checkpoint) -> Failure | None:
        """Loads a checkpoint, unless it is loaded. Errors are values, as a prediction's are."""
        ...

    async def unload(self, checkpoint: Checkpoint, *, wait: bool) -> Failure | None:
        """Gives a checkpoint's memory back, at once or once its requests are answered."""
        ...


class Profiles(Protocol):
    """Where profiles come from; ``profiling.Profiler``."""

    def nearest(self, checkpoint: Checkpoint) -> Profile | None: ...

    def ensure(self, checkpoint: Checkpoint, *, measure: bool = True) -> Profile | None: ...


class LocalPlacement:
    """All predictors in this process, on one device slot and one ledger. Lives on one event loop.

    Args:
        load_engine: how a checkpoint is loaded.
        limits: of every predictor.
        workers: threads that decode pictures.
        stopping: whether the service is on its way down.
        profiles: what checkpoints take; without them it is guessed.
        memory_limit_bytes: for the loaded checkpoints together.
        pinned: variants that stay in memory.
        prepare: makes what a later load of a checkpoint needs, where there is no room for it yet; blocking.
        device: what the device is called.
    """

    def __init__(
        self,
        load_engine: Callable[[Checkpoint], Engine],
        limits: Limits,
        *,
        workers: int = 2,
        stopping: Callable[[], bool] = lambda: False,
        profiles: Profiles | None = None,
        memory_limit_bytes: int = sys.maxsize,
        pinned: Collection[str] = (),
        prepare: Callable[[Checkpoint], None] = lambda _checkpoint: None,
        device: str = "",
    ) -> None:
        self._device = device
        self._load_engine = load_engine
        self._limits = limits
        self._stopping = stopping
        self._profiles = profiles
        self._pinned = frozenset(pinned)
        self._prepare = prepare
        self._residency = Residency(memory_limit_bytes)
        self._slot = DeviceSlot()
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        # A thread of its own: pictures are decoded while a network is loaded.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._predictors: dict[str, Predictor] = {}
        self._retiring: dict[asyncio.Task[None], Predictor] = {}
        self._state: str | None = "starting"
        watch(self)

    def predictor(self, checkpoint: Checkpoint) -> Predictor:
        found = self._predictors.get(checkpoint.name)
        if found is not None and (found.checkpoint is checkpoint or found.checkpoint == checkpoint):
            return found
        if found is not None:
            # Its file was replaced by another import. What is queued is still answered with the old weights.
            task = asyncio.get_running_loop().create_task(found.retire())
            self._retiring[task] = found
            task.add_done_callback(self._retiring.pop)
        new = Predictor(
            checkpoint,
            self._load_engine,
            self._slot,
            self._workers,
            self._limits,
            loading=self._loading,
            residency=self._residency,
            profile=self._profiles.nearest(checkpoint) if self._profiles else None,
            pinned=checkpoint.variant.name in self._pinned,
        )
        self._predictors[checkpoint.name] = new
        return new

    def serves(self, checkpoint: Checkpoint) -> bool:
        found = self._predictors.get(checkpoint.name)
        return found is None or found.checkpoint != checkpoint or not found.damaged

    def resident(self, checkpoint: Checkpoint) -> bool:
        found = self._predictors.get(checkpoint.name)
        return found is not None and found.ready

    def check_ready(self) -> None:
        if self._state is not None:
            raise NotReadyError(self._state)
        if self._stopping():
            raise NotReadyError("the service is stopping")

    def survey(self, checkpoints: Sequence[Checkpoint], encoded_bytes: int, deadline: float = math.inf) -> Survey:
        candidates = []
        asked = set()
        for checkpoint in checkpoints:
            if checkpoint.state == "loadable" and self.serves(checkpoint):
                predictor = self.predictor(checkpoint)
                asked.add(predictor)
                candidates.append(Candidate(checkpoint, predictor.standing(encoded_bytes, deadline)))
            else:
                candidates.append(Candidate(checkpoint, None))
        waiting = [c.standing for c in candidates if c.standing is not None and c.standing.queued]
        for predictor in self._predictors.values():
            if predictor.queued and predictor not in asked:
                waiting.append(predictor.standing(encoded_bytes, deadline))
        busy_s = self._slot.busy_s
        return Survey(candidates, Load({"": busy_s}, waiting))

    def judge(self, checkpoint: Checkpoint, predicted_s: float, actual_s: float, trial_s: float | None = None) -> None:
        found = self._predictors.get(checkpoint.name)
        if found is not None:
            found.safety.judge(predicted_s, actual_s, trial_s)

    def accuracy(self, checkpoint: Checkpoint) -> Accuracy:
        found = self._predictors.get(checkpoint.name)
        return Accuracy(0, None, None) if found is None else found.safety.accuracy()

    def memory(self) -> list[Memory]:
        return [Memory(self._device, self._residency.limit_bytes, self._residency.held_bytes)]

    def readings(self) -> Iterator[Reading]:
        """For Prometheus. Another thread may ask."""
        yield Reading("topfive_ready", float(self._state is None and not self._stopping()))
        if self._residency.limit_bytes < sys.maxsize:
            yield Reading("topfive_memory_limit_bytes", self._residency.limit_bytes)
        for predictor in (*list(self._predictors.values()), *list(self._retiring.values())):
            yield from predictor.readings()

    async def load(self, checkpoint: Checkpoint) -> Failure | None:
        return await self.predictor(checkpoint).try_load()

    async def unload(self, checkpoint: Checkpoint, *, wait: bool) -> Failure | None:
        return await self.predictor(checkpoint).try_unload(wait=wait)

    async def warm_up(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Measures what has no profile of this device, loads what is to be served as far as there is room for it, what
        is pinned first, and then says that the service is ready. A checkpoint that cannot be loaded is logged and
        answers with its error; it does not keep the others from serving."""
        for checkpoint in sorted(checkpoints, key=lambda c: c.variant.name not in self._pinned):
            self._state = f"loading {checkpoint.name}"
            try:
                await self._warm_up(self.predictor(checkpoint))
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s cannot be loaded", checkpoint.name)
        self._state = None

    async def _warm_up(self, predictor: Predictor) -> None:
        loop = asyncio.get_running_loop()
        if self._profiles is not None:
            predictor.expect(await loop.run_in_executor(self._loading, self._profiles.ensure, predictor.checkpoint))
        if predictor.has_room:
            await predictor.load()
        else:
            await loop.run_in_executor(self._loading, self._prepare, predictor.checkpoint)

    async def close(self) -> None:
        """Ends every predictor after its running batch."""
        self._state = "the service is stopping"
        unwatch(self)
        for predictor in self._predictors.values():
            await predictor.close()
        await self._residency.close()
        self._slot.close()
        for pool in (self._workers, self._loading):
            pool.shutdown(wait=False, cancel_futures=True)
