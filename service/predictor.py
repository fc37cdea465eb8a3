"""A predictor: one checkpoint being served, from encoded bytes to probabilities."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

import numpy as np

from models.checkpoints import Checkpoint, WrongWeightsError
from service.batcher import Batcher
from service.decoding import Crop, decode, decode_small
from service.device import DeviceSlot
from service.engines import Engine, OverlappingEngine, TopK
from service.errors import INTERNAL, DeadlineMissedError, Failure, failure_of
from service.forecast import Forecast, Safety
from service.live import Reading
from service.prediction import Limits, Prediction
from service.profiles import Profile
from service.recording import PredictorSeries
from service.residency import Residency
from service.resident import Needs, Resident
from service.standing import Standing

log = logging.getLogger(__name__)


_Top = tuple[tuple[float, ...], tuple[int, ...]]


class Predictor:
    """Serves one checkpoint. Loads it on first use; lives on one event loop.

    Args:
        checkpoint: what is served.
        load_engine: makes the engine; blocking, called in ``loading``.
        slot: the device, shared with the other predictors of the process.
        workers: the small thread pool that decodes pictures.
        limits: bounds on batch, queue and picture.
        loading: the thread in which weights are loaded; ``workers`` by default.
        residency: the device's ledger, shared as the slot is; without one there is no memory limit.
        profile: what the checkpoint takes.
        pinned: it stays in memory once it is loaded.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        load_engine: Callable[[Checkpoint], Engine],
        slot: DeviceSlot,
        workers: Executor,
        limits: Limits,
        *,
        loading: Executor | None = None,
        residency: Residency | None = None,
        profile: Profile | None = None,
        pinned: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self._load_engine = load_engine
        self._slot = slot
        self._workers = workers
        self._loading = loading or workers
        self._limits = limits
        self._engine: Engine | None = None
        self._overlapping: OverlappingEngine | None = None
        self._damage: WrongWeightsError | None = None
        self._arriving: list[float] = []
        """Deadlines of the pictures that wait for the load or are being decoded."""
        self._arriving_bytes = 0
        self.forecast = Forecast(checkpoint, profile, limits.max_batch_size)
        self.safety = Safety()
        self._series = PredictorSeries(checkpoint)
        self._residency = residency or Residency(sys.maxsize)
        self._resident = Resident(
            checkpoint.name,
            load=self._load,
            unload=self._unload,
            needs=lambda: Needs(self.forecast.footprint_bytes, self.forecast.load_peak_bytes),
            load_s=lambda: self.forecast.load_s,
            worth=(checkpoint.top1 or 50.0) / 100,
            pinned=pinned,
            evicted=self._series.evicted,
        )
        self._residency.add(self._resident)
        self._batcher: Batcher[Crop, _Top] = Batcher(
            self._run,
            slot,
            max_batch_size=limits.max_batch_size,
            max_queue=limits.max_queue,
            max_queue_bytes=limits.max_queue_bytes,
            forward_s=lambda: self.forecast.forward_s,
            expected_s=lambda size: self.forecast.expected_s(size),
            learn=self._learn,
            begin=lambda: self._begin if self._overlapping is not None else None,
            arriving=lambda: len(self._arriving),
        )

    @property
    def damaged(self) -> bool:
        """Whether its file was read and found wrong; a file that takes its place is another checkpoint."""
        return self._damage is not None

    @property
    def ready(self) -> bool:
        """Whether the checkpoint is loaded and warm."""
        return self._resident.loaded

    def expect(self, profile: Profile | None) -> None:
        """Predicts by another profile from now on."""
        self.forecast = Forecast(self.checkpoint, profile, self._limits.max_batch_size)

    def standing(self, encoded_bytes: int, deadline: float) -> Standing:
        """What a picture of that size with that deadline would take, and what is in its way."""
        forecast, resident = self.forecast, self._resident
        here = resident.loaded and not resident.leaving
        return Standing(
            forecast.forward_s,
            forecast.decode_s(encoded_bytes),
            forecast.footprint_bytes,
            ahead=self._batcher.ahead_of(deadline) + sum(other <= deadline for other in self._arriving),
            queued=self.queued,
            max_queue=self._limits.max_queue,
            load_s=0.0 if here else self._residency.load_wait_s(resident),
            spread=forecast.spread,
            safety=self.safety.factor,
            fits=here or self._residency.fits(resident),
        )

    @property
    def queued(self) -> int:
        """Pictures that wait, or are being decoded."""
        return len(self._arriving) + self._batcher.queue_length

    def readings(self) -> Iterator[Reading]:
        """For Prometheus. Another thread may ask."""
        model = self.checkpoint.variant.name
        yield Reading("topfive_queue_length", self.queued, model)
        yield Reading("topfive_queue_oldest_seconds", self._batcher.oldest_s, model)
        yield Reading("topfive_resident_bytes", self._resident.held, model)
        yield Reading("topfive_footprint_bytes", self.forecast.footprint_bytes, model)

    @property
    def has_room(self) -> bool:
        """Whether it could be loaded without unloading another."""
        return self._residency.has_room(self._resident)

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
            return self._failure(error)

    async def try_load(self) -> Failure | None:
        """As ``load``, with errors as values."""
        try:
            await self.load()
        except Exception as error:
            return self._failure(error)
        return None

    async def try_unload(self, *, wait: bool) -> Failure | None:
        """Gives its memory back until somebody asks for it again; ``wait`` for its requests in flight. Errors are
        values."""
        try:
            await self._residency.unload(self._resident, wait=wait)
        except Exception as error:
            return self._failure(error)
        return None

    def _failure(self, error: Exception) -> Failure:
        failure = failure_of(error)
        if failure.problem is INTERNAL:
            log.error("%s failed", self.checkpoint.name, exc_info=error)
        return failure

    async def load(self) -> None:
        """Loads and warms the checkpoint unless that is done; concurrent callers wait for the one load.

        Raises:
            WeightsMissingError, WrongWeightsError: see ``building.build_checkpoint``.
            MemoryLimitError: there can be no room for it.
        """
        if self._damage is not None:
            raise self._damage
        async with self._residency.using(self._resident):
            pass

    async def _load(self) -> None:
        if self._damage is not None:
            raise self._damage
        started, loop = time.monotonic(), asyncio.get_running_loop()
        try:
            engine = await loop.run_in_executor(self._loading, self._load_engine, self.checkpoint)
            try:
                async with self._slot.taken():
                    await self._slot.run(lambda: engine.warm_up(self._limits.max_batch_size))
            except BaseException:
                engine.close()
                raise
        except Exception as error:
            self._series.not_loaded()
            if isinstance(error, WrongWeightsError):
                self._damage = error
            raise
        self._series.loaded(time.monotonic() - started)
        self._engine = engine
        self._overlapping = engine if isinstance(engine, OverlappingEngine) else None

    async def _unload(self) -> None:
        engine, self._engine, self._overlapping = self._engine, None, None
        if engine is not None:
            # On the slot's thread: another checkpoint's batch may be on the device.
            async with self._slot.taken():
                await self._slot.run(engine.close)

    async def retire(self) -> None:
        """Answers what is here already, gives the memory back and leaves the ledger."""
        await self._residency.remove(self._resident)
        await self._batcher.close()
        self._series.replaced()

    async def close(self) -> None:
        """Lets the running batch finish and gives the memory back."""
        await self._batcher.close()
        await self._unload()

    async def _predict(self, image: bytes, deadline: float) -> Prediction:
        if self._damage is not None:
            raise self._damage
        # Pictures that wait for the load or are being decoded will want a place in the queue in a moment.
        self._batcher.check_room(1 + len(self._arriving), self._arriving_bytes + len(image))
        self._arriving.append(deadline)
        self._arriving_bytes += len(image)
        try:
            await self._residency.enter(self._resident)
        except BaseException:
            self._arrived(image, deadline)
            raise
        how = self.checkpoint.preprocess, self._limits.max_pixels
        try:
            try:
                started = time.monotonic()
                crop = decode_small(image, *how)
                if crop is None:
                    crop = await asyncio.get_running_loop().run_in_executor(self._workers, decode, image, *how)
            finally:
                self._arrived(image, deadline)
            decode_s = time.monotonic() - started
            self.forecast.learn_decode(len(image), decode_s)
            batched = await self._batcher.submit(crop, deadline, crop.nbytes)
        finally:
            self._residency.leave(self._resident)
        probabilities, indices = batched.output
        return Prediction(probabilities, indices, batched.batch_size, decode_s, batched.queue_s, batched.forward_s)

    def _learn(self, size: int, seconds: float, cut: str) -> None:
        self._series.batch(size, cut, seconds, self.forecast.profiled_s(size))
        self.forecast.learn(size, seconds)

    def _arrived(self, image: bytes, deadline: float) -> None:
        self._arriving.remove(deadline)
        self._arriving_bytes -= len(image)
        # Where it will not be queued, a batch that waits for it must not go on waiting.
        self._batcher.look()

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
