"""A predictor: one checkpoint being served, from encoded bytes to probabilities."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.checkpoints import Checkpoint, WrongWeightsError
from models.pictures import TooManyPixelsError
from models.preprocess import picture_to_crop
from service.batcher import Batcher
from service.device import DeviceSlot
from service.engines import Engine, EngineFactory, OverlappingEngine, TopK
from service.errors import INTERNAL, DeadlineMissedError, Failure, failure_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable classes of one picture, and where its time went. Plain data that crosses processes."""

    probabilities: tuple[float, ...]
    indices: tuple[int, ...]
    batch_size: int
    decode_s: float
    queue_s: float
    forward_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a predictor."""

    max_batch_size: int = 16
    max_queue: int = 512
    max_pixels: int = 80_000_000


#: A picture within both is decoded on the event loop, in a third of a millisecond. Few bytes hold few scans and no
#: large profile, which would take longer.
_SMALL_BYTES = 4_096
_SMALL_PIXELS = 128 * 128

Crop = npt.NDArray[np.uint8]
_Top = tuple[tuple[float, ...], tuple[int, ...]]


class Predictor:
    """Serves one checkpoint. Loads it on first use; lives on one event loop.

    Args:
        checkpoint: what is served.
        load_engine: makes the engine; blocking, called in ``workers``.
        slot: the device, shared with the other predictors of the process.
        workers: the small thread pool that decodes pictures and loads weights.
        limits: bounds on batch, queue and picture.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        load_engine: EngineFactory,
        slot: DeviceSlot,
        workers: Executor,
        limits: Limits,
    ) -> None:
        self.checkpoint = checkpoint
        self._load_engine = load_engine
        self._slot = slot
        self._workers = workers
        self._limits = limits
        self._engine: Engine | None = None
        self._overlapping: OverlappingEngine | None = None
        self._loading: asyncio.Task[None] | None = None
        self._damage: WrongWeightsError | None = None
        self._arriving = 0
        self._batcher: Batcher[Crop, _Top] = Batcher(
            self._run,
            slot,
            max_batch_size=limits.max_batch_size,
            max_queue=limits.max_queue,
            begin=lambda: self._begin if self._overlapping is not None else None,
            arriving=lambda: self._arriving,
        )

    @property
    def damaged(self) -> bool:
        """Whether its file was read and found wrong; a file that takes its place is another checkpoint."""
        return self._damage is not None

    @property
    def ready(self) -> bool:
        """Whether the checkpoint is loaded and warm."""
        return self._engine is not None

    async def predict(self, image: bytes, deadline: float) -> Prediction | Failure:
        """Classifies one encoded picture. Errors come back as values, since the caller may be another process.

        Args:
            image: a file's bytes, as the client sent them.
            deadline: on ``time.monotonic()``.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._predict(image, deadline)
        except TimeoutError:
            return failure_of(DeadlineMissedError("the deadline passed before there was an answer"))
        except Exception as error:
            failure = failure_of(error)
            if failure.problem is INTERNAL:
                log.exception("%s failed", self.checkpoint.name)
            return failure

    async def load(self) -> None:
        """Loads and warms the checkpoint unless that is done; concurrent callers wait for the one load.

        Raises:
            WeightsMissingError, WrongWeightsError: see ``building.build_checkpoint``.
        """
        if self._engine is not None:
            return
        if self._damage is not None:
            raise self._damage
        if self._loading is None or self._loading.done():
            self._loading = asyncio.get_running_loop().create_task(self._load())
        # A caller whose time is over must not take the load with it that others wait for.
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            engine = await loop.run_in_executor(self._workers, self._load_engine, self.checkpoint)
        except WrongWeightsError as error:
            self._damage = error
            raise
        try:
            async with self._slot.taken():
                await self._slot.run(lambda: engine.warm_up((1, self._limits.max_batch_size)))
        except BaseException:
            engine.close()
            raise
        self._engine = engine
        self._overlapping = engine if isinstance(engine, OverlappingEngine) else None

    async def retire(self) -> None:
        """Answers what is here already, then closes."""
        # Once in a re-import: not worth an event that every request would have to set.
        while self._arriving or self._batcher.queue_length:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await self.close()

    async def close(self) -> None:
        """Lets the running batch finish and gives the memory back."""
        await self._batcher.close()
        if self._engine is not None:
            # On the slot's thread: another checkpoint's batch may be on the device.
            async with self._slot.taken():
                await self._slot.run(self._engine.close)
            self._engine = self._overlapping = None

    async def _predict(self, image: bytes, deadline: float) -> Prediction:
        # Pictures that wait for the load or are being decoded will want a place in the queue in a moment.
        self._batcher.check_room(1 + self._arriving)
        self._arriving += 1
        try:
            if self._engine is None:
                await self.load()
            started = time.monotonic()
            crop = self._decode_small(image)
            if crop is None:
                crop = await asyncio.get_running_loop().run_in_executor(self._workers, self._decode, image)
        except BaseException:
            self._arriving -= 1
            self._batcher.look()
            raise
        self._arriving -= 1
        decode_s = time.monotonic() - started
        batched = await self._batcher.submit(crop, deadline)
        probabilities, indices = batched.output
        return Prediction(probabilities, indices, batched.batch_size, decode_s, batched.queue_s, batched.forward_s)

    def _decode_small(self, image: bytes) -> Crop | None:
        """Decodes on the event loop what takes less time than handing it to a thread does: digits and thumbnails. None
        for everything else, a small file of many pixels above all."""
        if len(image) > _SMALL_BYTES:
            return None
        try:
            pixels = min(_SMALL_PIXELS, self._limits.max_pixels)
            return picture_to_crop(image, self.checkpoint.preprocess, max_pixels=pixels)
        except TooManyPixelsError:
            return None

    def _decode(self, image: bytes) -> Crop:
        return picture_to_crop(image, self.checkpoint.preprocess, max_pixels=self._limits.max_pixels)

    def _run(self, crops: Sequence[Crop]) -> list[_Top]:
        assert self._engine is not None
        return _rows(self._engine.run(np.stack(crops)))

    def _begin(self, crops: Sequence[Crop]) -> Callable[[], list[_Top]]:
        engine = self._overlapping
        assert engine is not None
        batch = engine.submit(np.stack(crops))
        return lambda: _rows(engine.collect(batch))


def _rows(top: TopK) -> list[_Top]:
    return [
        (tuple(probabilities), tuple(indices))
        for probabilities, indices in zip(top.probabilities.tolist(), top.indices.tolist(), strict=True)
    ]
