"""A predictor: one checkpoint being served, from encoded bytes to probabilities."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial

from models.checkpoints.catalogue import Checkpoint
from service.batching.batcher import Batched, Batcher
from service.batching.limit import BatchLimit
from service.batching.queue import Batch
from service.batching.slot import DeviceSlot
from service.domain.errors import INTERNAL, DeadlineMissedError, Failure, LoadFailedError, failure_of
from service.domain.prediction import Limits, Prediction
from service.domain.quiet import Quiet
from service.domain.snapshot import Snapshot
from service.engines import Engine
from service.profiling.forecast import Forecast
from service.profiling.profiles import Profile
from service.routing.safety import Safety
from service.runtime.decoding import Arrival, Arriving, decode, decode_small
from service.runtime.forward import Ask, Passes, Top, timed
from service.runtime.load_failures import LoadFailures
from service.runtime.residency import Residency
from service.runtime.resident import Needs, Resident
from service.telemetry.gauges import Reading
from service.telemetry.picture_spans import Phases, forward_over, phases_here
from service.telemetry.recorder import PredictorMetrics

log = logging.getLogger(__name__)


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
        prepare: does what of a load needs no device memory; blocking, called in ``loading``.
        clock: seconds, monotonic; by it a load that failed is tried again.
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
        prepare: Callable[[Checkpoint], None] = lambda _checkpoint: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.checkpoint = checkpoint
        self._load_engine = load_engine
        self._slot = slot
        self._workers = workers
        self._loading = loading or workers
        self._limits = limits
        self._passes = Passes()
        self._prepare_load = prepare
        self._prepared = False
        self._failures = LoadFailures(checkpoint, clock)
        self._arriving = Arriving()
        self._quiet = Quiet()
        self.forecast = Forecast(checkpoint, profile, limits.max_batch_size, quiet=self._quiet)
        self.safety = Safety(quiet=self._quiet)
        self._batch_limit = BatchLimit(limits.max_batch_size, lambda: self.forecast.worthwhile, self._quiet)
        self._series = PredictorMetrics(checkpoint)
        self._residency = residency or Residency(sys.maxsize)
        self._resident = Resident(
            checkpoint.name,
            load=self._load,
            unload=self._unload,
            prepare=self.prepare,
            needs=lambda: Needs(self.forecast.footprint_bytes, self.forecast.load_peak_bytes),
            load_s=lambda: self.forecast.load_s,
            worth=(checkpoint.top1 or 50.0) / 100,
            pinned=pinned,
            evicted=self._series.evicted,
        )
        self._residency.add(self._resident)
        self._batcher: Batcher[Ask, Top] = Batcher(
            self._passes.run,
            slot,
            limit=self._batch_limit,
            max_queue=limits.max_queue,
            max_queue_bytes=limits.max_queue_bytes,
            forward_s=lambda: self.forecast.forward_s,
            expected_s=lambda size: self.forecast.expected_s(size),
            learn=self._learn,
            begin=self._passes.beginning,
            arriving=lambda: len(self._arriving),
        )

    @property
    def damaged(self) -> bool:
        """Whether its file was read and found wrong; a file that takes its place is another checkpoint."""
        return self._failures.final

    @property
    def failing(self) -> bool:
        """Whether its last load failed, and none has succeeded since."""
        return self._failures.last is not None

    @property
    def failure(self) -> LoadFailedError | None:
        """Why it is not to be tried now, after a load that failed."""
        return self._failures.in_the_way

    @property
    def last_failure(self) -> LoadFailedError | None:
        """Why its last load failed, whether or not the next try is due; None if none failed since one succeeded."""
        return None if self._failures.last is None else self._failures.told(self._failures.last)

    @property
    def again_in_s(self) -> float:
        """Seconds until the next try after a load that failed."""
        return self._failures.again_in_s

    @property
    def ready(self) -> bool:
        """Whether the checkpoint is loaded and warm."""
        return self._resident.loaded

    def expect(self, profile: Profile | None) -> None:
        """Predicts by another profile from now on."""
        self.forecast = Forecast(self.checkpoint, profile, self._limits.max_batch_size, quiet=self._quiet)

    def snapshot(self, encoded_bytes: int, deadline: float) -> Snapshot:
        """What a picture of that size with that deadline would take, and what is in its way."""
        forecast, resident = self.forecast, self._resident
        here = resident.loaded and not resident.leaving
        return Snapshot(
            forecast.forward_s[: self._batch_limit.size + 1],
            forecast.decode_s(encoded_bytes),
            forecast.footprint_bytes,
            ahead=self._batcher.ahead_of(deadline) + self._arriving.ahead_of(deadline),
            queued=self.queued,
            max_queue=self._limits.max_queue,
            load_s=0.0 if here else self._residency.load_wait_s(resident),
            spread=forecast.spread,
            profiled_decode_s=forecast.profiled_decode_s(encoded_bytes),
            profiled_forward_s=forecast.profiled_forward_s,
            safety=self.safety.factor,
            trial=self.safety.trial,
            fits=here or self._residency.fits(resident),
        )

    @property
    def queued(self) -> int:
        """Pictures that wait, or are being decoded."""
        return len(self._arriving) + self._batcher.queue_length

    def readings(self) -> Iterator[Reading]:
        """For Prometheus. Another thread may ask."""
        checkpoint, now = self.checkpoint, time.monotonic()
        model = (checkpoint.variant.name,)
        oldest_s = max(self._batcher.oldest_s, self._arriving.oldest_s(now))
        yield Reading("topfive_queue_length", self.queued, model)
        yield Reading("topfive_queue_oldest_seconds", oldest_s, model)
        yield Reading("topfive_resident_bytes", self._resident.held, model)
        yield Reading("topfive_footprint_bytes", self.forecast.footprint_bytes, model)
        info = (*model, checkpoint.name, checkpoint.labels, checkpoint.origin, str(checkpoint.trained).lower())
        yield Reading("topfive_checkpoint_info", 1, info)

    @property
    def has_room(self) -> bool:
        """Whether it could be loaded without unloading another."""
        return self._residency.fits(self._resident) and self._residency.has_room(self._resident)

    def pin(self) -> None:
        """From now on it stays in memory once it is loaded."""
        self._resident.pinned = True

    async def predict(self, image: bytes, deadline: float, whole: bool = False) -> Prediction | Failure:
        """Classifies one encoded picture. Errors come back as values, since the caller may be another process.

        Args:
            image: a file's bytes, as the client sent them.
            deadline: on ``time.monotonic()``.
            whole: the probabilities of all classes are wanted too.
        """
        phases = phases_here(self.checkpoint.variant.name)
        outcome: Prediction | Failure | None = None
        self._quiet.begin()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                outcome = await self._predict(image, deadline, whole, phases)
        except TimeoutError:
            outcome = failure_of(DeadlineMissedError("the deadline passed before there was an answer"))
        except Exception as error:
            outcome = self._failure(error)
        finally:
            self._quiet.end()
            if phases is not None:
                phases.end(outcome)
        return outcome

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
            LoadFailedError: the load failed, or one before it did and it is not tried again yet.
            MemoryLimitError: there can be no room for it.
        """
        self._failures.check()
        async with self._residency.using(self._resident):
            pass

    async def prepare(self) -> None:
        """Does what of a load needs no device memory, unless that is done.

        Raises:
            LoadFailedError: as ``load``.
        """
        if self._prepared:
            return
        self._failures.check()
        try:
            await asyncio.get_running_loop().run_in_executor(self._loading, self._prepare_load, self.checkpoint)
        except Exception as error:
            raise self._not_loaded(error) from error
        self._prepared = True

    def _not_loaded(self, error: Exception) -> LoadFailedError:
        self._series.not_loaded()
        self._prepared = False
        return self._failures.failed(error)

    async def _load(self) -> None:
        self._failures.check()
        loop = asyncio.get_running_loop()
        try:
            load = partial(timed, partial(self._load_engine, self.checkpoint))
            engine, load_s = await loop.run_in_executor(self._loading, load)
            try:
                async with self._slot.taken():
                    warm_up = partial(timed, partial(engine.warm_up, self._limits.max_batch_size))
                    _, warm_up_s = await self._slot.run(warm_up)
            except BaseException:
                engine.close()
                raise
        except Exception as error:
            raise self._not_loaded(error) from error
        self._failures.succeeded()
        self._prepared = True
        self._series.loaded(load_s + warm_up_s)
        self._passes.use(engine)

    async def _unload(self) -> None:
        engine = self._passes.use(None)
        if engine is not None:
            # On the slot's thread: another checkpoint's batch may be on the device.
            async with self._slot.taken():
                await self._slot.run(engine.close)

    async def retire(self) -> None:
        """Answers what is here already, gives the memory back and leaves the ledger."""
        self._resident.evicted = lambda _reason: self._series.evicted("replaced")
        await self._residency.remove(self._resident)
        await self._batcher.close()

    async def close(self) -> None:
        """Lets the running batch finish and gives the memory back."""
        await self._batcher.close()
        await self._unload()

    async def _predict(self, image: bytes, deadline: float, whole: bool, phases: Phases | None) -> Prediction:
        if self._failures.last is not None:
            self._failures.check()
        # Pictures that wait for the load or are being decoded will want a place in the queue in a moment.
        self._batcher.check_room(1 + len(self._arriving), self._arriving.size + len(image))
        arrival = self._arriving.come(deadline, time.monotonic(), len(image))
        if phases is not None and not self.ready:
            phases.begin("load", time.monotonic())
        try:
            await self._residency.enter(self._resident)
        except BaseException:
            self._arrived(arrival)
            raise
        how = self.checkpoint.preprocess, self._limits.max_pixels
        try:
            try:
                started = time.monotonic()
                if phases is not None:
                    phases.begin("decode", started)
                crop = decode_small(image, *how)
                if crop is None:
                    crop = await asyncio.get_running_loop().run_in_executor(self._workers, decode, image, *how)
            finally:
                self._arrived(arrival)
            decode_s = time.monotonic() - started
            self.forecast.learn_decode(len(image), decode_s)
            if phases is not None:
                phases.over(started + decode_s)
            batched = await self._batcher.submit(Ask(crop, whole), deadline, crop.nbytes, phases)
        finally:
            self._residency.leave(self._resident)
        probabilities, indices, all_of_them = batched.output
        times = decode_s, batched.queue_s, batched.forward_s
        return Prediction(probabilities, indices, batched.batch_size, *times, all_of_them)

    def _learn(self, batch: Batch[Ask, Batched[Top]], started: float, seconds: float, error: Exception | None) -> None:
        if error is None:
            size = len(batch.tickets)
            self._series.batch(size, batch.cut, seconds, self.forecast.profiled_s(size))
            self.forecast.learn(size, seconds)
        forward_over(batch.tickets, batch.cut, started, seconds, error)

    def _arrived(self, arrival: Arrival) -> None:
        self._arriving.end(arrival)
        # Where it will not be queued, a batch that waits for it must not go on waiting.
        self._batcher.look()
