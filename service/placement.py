"""Where predictors live. The HTTP layer asks for one by its checkpoint and does not care."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from models.checkpoints import Checkpoint
from service.device import DeviceSlot
from service.engines import EngineFactory
from service.errors import Failure, NotReadyError
from service.predictor import Limits, Prediction, Predictor

log = logging.getLogger(__name__)


class Predicts(Protocol):
    """What the HTTP layer needs of a predictor, wherever it is."""

    async def predict(self, image: bytes, deadline: float) -> Prediction | Failure: ...


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


class LocalPlacement:
    """All predictors in this process, on one device slot. Lives on one event loop.

    Args:
        load_engine: how a checkpoint is loaded.
        limits: of every predictor.
        workers: threads that decode pictures and load weights.
        stopping: whether the service is on its way down.
    """

    def __init__(
        self,
        load_engine: EngineFactory,
        limits: Limits,
        *,
        workers: int = 2,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._load_engine = load_engine
        self._limits = limits
        self._stopping = stopping
        self._slot = DeviceSlot()
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._predictors: dict[str, Predictor] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._state: str | None = "starting"

    def predictor(self, checkpoint: Checkpoint) -> Predictor:
        found = self._predictors.get(checkpoint.name)
        if found is not None and (found.checkpoint is checkpoint or found.checkpoint == checkpoint):
            return found
        if found is not None:
            # Its file was replaced by another import. What is queued is still answered with the old weights.
            task = asyncio.get_running_loop().create_task(found.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        new = Predictor(checkpoint, self._load_engine, self._slot, self._workers, self._limits)
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

    async def warm_up(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Loads what is to be served, one after the other, then says that the service is ready. A checkpoint that
        cannot be loaded is logged and answers with its error; it does not keep the others from serving."""
        for checkpoint in checkpoints:
            self._state = f"loading {checkpoint.name}"
            try:
                await self.predictor(checkpoint).load()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s cannot be loaded", checkpoint.name)
        self._state = None

    async def close(self) -> None:
        """Ends every predictor after its running batch."""
        self._state = "the service is stopping"
        for predictor in self._predictors.values():
            await predictor.close()
        self._slot.close()
        self._workers.shutdown(wait=False, cancel_futures=True)
