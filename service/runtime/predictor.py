"""A predictor serves one checkpoint: encoded bytes in, probabilities out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

from models.checkpoints.catalogue import Checkpoint
from models.images.outline import Outline
from service.batching.batcher import Batcher
from service.batching.limit import BatchLimit
from service.batching.places import Places
from service.batching.slot import DeviceSlot
from service.domain.deadlines import Deadlines
from service.domain.errors import DeadlineMissedError, Failure, LoadFailedError, failure_of, known_failure
from service.domain.picture import Picture
from service.domain.prediction import Limits, Prediction
from service.domain.quiet import Quiet
from service.domain.snapshot import Snapshot
from service.engines import Engine
from service.inference.decoders import Decoders
from service.profiling.forecast import Forecast
from service.profiling.profiles import Profile
from service.runtime.arriving import Arriving
from service.runtime.decoding import Decoding
from service.runtime.forward import ForwardPasses, Input, Output
from service.runtime.gpu_decoding import GpuDecoding
from service.runtime.loading import Loading
from service.runtime.parking import Parking
from service.runtime.residency import Residency
from service.telemetry.gauges import Reading
from service.telemetry.picture_spans import Phases, phases_here
from service.telemetry.recorder import PredictorMetrics


class Predictor:
    """Serves one checkpoint. Loads it on first use. Not thread-safe: use it from one event loop.

    Args:
        checkpoint: the checkpoint to serve.
        load_engine: makes the engine; blocks, and is called in ``loading``.
        slot: the device, shared with the other predictors of the process.
        decoders: the threads that decode pictures.
        limits: bounds on batch, queue and picture.
        loading: the thread in which weights are loaded; a decoding one by default.
        residency: the device's ledger, shared as the slot is; without one there is no memory limit.
        gpu_decoding: decodes pictures on the device; without it, or where it does not, ``decoders`` do.
        parking: the host memory for weights that leave the device, shared too; without one they are not kept.
        profile: measurements of the checkpoint on this device.
        pinned: whether the checkpoint stays in memory once it is loaded.
        prepare: does the part of a load that needs no device memory; blocks, and is called in ``loading``.
        clock: seconds, monotonic; deadlines are on it, and so must be the times of ``slot`` and ``residency``.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        load_engine: Callable[[Checkpoint], Engine],
        slot: DeviceSlot,
        decoders: Decoders,
        limits: Limits,
        *,
        loading: Executor | None = None,
        residency: Residency | None = None,
        gpu_decoding: GpuDecoding | None = None,
        parking: Parking | None = None,
        profile: Profile | None = None,
        pinned: bool = False,
        prepare: Callable[[Checkpoint], None] = lambda _checkpoint: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.checkpoint = checkpoint
        self._limits = limits
        self._clock = clock
        self._arriving = Arriving(lambda: self._batcher.arriving_changed())
        self._deadlines = Deadlines(clock)
        self._quiet = Quiet(clock)
        self._metrics = PredictorMetrics(checkpoint)
        self._passes = ForwardPasses(self._forecast(profile), self._arriving, self._metrics)
        self._decoding = Decoding(
            checkpoint, limits.max_pixels, decoders, gpu_decoding, self._arriving, self._passes, clock
        )
        self._batch_limit = BatchLimit(limits.max_batch_size, lambda: self._passes.forecast.worthwhile, self._quiet)
        self._residency = residency or Residency(sys.maxsize, clock)
        self._loading = Loading(
            checkpoint,
            load_engine,
            prepare,
            slot,
            loading or decoders.threads,
            self._passes,
            self._metrics,
            parking or Parking(),
            gpu_decoding,
            max_batch_size=limits.max_batch_size,
            pinned=pinned,
            clock=clock,
        )
        self._failures = self._loading.failures
        self._resident = self._loading.resident
        self._place = self._loading.place
        self._residency.add(self._resident)
        self._batcher: Batcher[Input, Output] = Batcher(
            self._passes,
            slot,
            self._batch_limit,
            max_queue=limits.max_queue,
            max_queue_bytes=limits.max_queue_bytes,
            clock=clock,
        )
        self._waiting = self._batcher.waiting
        self._places = Places(limits.max_queue, limits.max_queue_bytes)

    def _forecast(self, profile: Profile | None) -> Forecast:
        return Forecast(self.checkpoint, profile, self._limits.max_batch_size, self._clock, self._quiet)

    @property
    def forecast(self) -> Forecast:
        """What the checkpoint will take."""
        return self._passes.forecast

    @property
    def damaged(self) -> bool:
        """Whether the checkpoint's file was read and found wrong. A file that replaces it is another checkpoint."""
        return self._failures.final

    @property
    def failing(self) -> bool:
        """Whether the last load failed."""
        return self._failures.last is not None

    @property
    def failure(self) -> LoadFailedError | None:
        """Why the checkpoint must not be loaded now: the last load failed a moment ago. None if it may be loaded."""
        return self._failures.in_the_way

    @property
    def last_failure(self) -> LoadFailedError | None:
        """Why the last load failed, whether or not the next try is due; None if it did not fail."""
        return None if self._failures.last is None else self._failures.told(self._failures.last)

    @property
    def again_in_s(self) -> float:
        """Seconds until the checkpoint may be loaded again, after a load that failed."""
        return self._failures.again_in_s

    @property
    def ready(self) -> bool:
        """Whether the checkpoint is loaded and warm."""
        return self._resident.loaded

    @property
    def at_hand(self) -> bool:
        """Whether the checkpoint is loaded, and is not about to be unloaded."""
        return self._resident.loaded and not self._resident.leaving

    @property
    def has_place(self) -> bool:
        """Whether the queue has a place for another picture."""
        return self.queued < self._limits.max_queue

    @property
    def one_s(self) -> float:
        """About how long the forward pass of one picture takes."""
        return self.forecast.forward_s[1]

    @property
    def waiting_s(self) -> float:
        """At most how long the pictures that wait or will soon wait take the device: as long as one by one."""
        return self.soon * self.one_s

    def expect(self, profile: Profile | None) -> None:
        """Forecasts by another profile from now on."""
        self._passes.forecast = self._forecast(profile)

    def snapshot(
        self, encoded_bytes: int, deadline: float, caller: str = "", outline: Outline | None = None
    ) -> Snapshot:
        """How long a caller's picture of that size, with that outline and deadline would take, and what has to be done
        before it."""
        forecast, resident, queued = self.forecast, self._resident, self.soon
        here = resident.loaded and not resident.leaving
        decode_s, profiled_decode_s = forecast.decode_s(encoded_bytes, outline)
        # By place: this runs for every checkpoint at each decision, and names cost time.
        return Snapshot(
            forecast.forward_s[: self._batch_limit.size + 1],
            decode_s,
            forecast.footprint_bytes,
            "",
            self._batcher.ahead_of(deadline, caller) + self._arriving.ahead_of(deadline, caller) if queued else 0,
            queued,
            self._limits.max_queue,
            0.0 if here else self._residency.load_wait_s(resident),
            forecast.spread,
            profiled_decode_s,
            forecast.profiled_forward_s,
            here or self._residency.fits(resident),
        )

    @property
    def soon(self) -> int:
        """How many pictures wait, or will soon have been decoded."""
        return self._arriving.soon + len(self._waiting)

    @property
    def queued(self) -> int:
        """How many pictures wait or are being decoded."""
        return len(self._arriving) + len(self._waiting)

    def readings(self) -> Iterator[Reading]:
        """The gauges of this checkpoint. May be read from another thread."""
        checkpoint, now = self.checkpoint, self._clock()
        model = (checkpoint.variant.name,)
        oldest_s = max(self._batcher.oldest_s, self._arriving.oldest_s(now))
        yield Reading("topfive_queue_length", self.queued, model)
        yield Reading("topfive_queue_oldest_seconds", oldest_s, model)
        yield Reading("topfive_resident_bytes", self._resident.held, model)
        yield Reading("topfive_parked_bytes", self._place.held, model)
        yield Reading("topfive_footprint_bytes", self.forecast.footprint_bytes, model)
        info = (*model, checkpoint.name, checkpoint.labels, checkpoint.origin, str(checkpoint.trained).lower())
        yield Reading("topfive_checkpoint_info", 1, info)

    @property
    def has_room(self) -> bool:
        """Whether the checkpoint could be loaded without unloading another."""
        return self._residency.fits(self._resident) and self._residency.has_room(self._resident)

    def pin(self) -> None:
        """Keeps the checkpoint in memory from now on, once it is loaded."""
        self._resident.pinned = True

    async def predict(
        self, image: bytes | Picture, deadline: float, whole: bool = False, caller: str = ""
    ) -> Prediction | Failure:
        """Classifies one encoded picture. Errors are returned, not raised, since the caller may be another process.

        Args:
            image: a file's bytes, as the client sent them; or a picture whose bytes another process has.
            deadline: on the predictor's clock.
            whole: whether the probabilities of all classes are wanted.
            caller: who asks. Callers share the queue and the device.
        """
        phases = phases_here(self.checkpoint.variant.name)
        outcome: Prediction | Failure | None = None
        self._quiet.begin()
        try:
            with self._deadlines.until(deadline):
                outcome = await self._predict(image, deadline, whole, caller, phases)
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
        """Loads the checkpoint as ``load`` does, but returns errors."""
        try:
            await self.load()
        except Exception as error:
            return self._failure(error)
        return None

    async def try_unload(self, *, wait: bool) -> Failure | None:
        """Frees the memory until the checkpoint is requested again. Returns errors.

        Args:
            wait: for the requests in flight; without it, a checkpoint with requests in flight is not unloaded.
        """
        try:
            await self._residency.unload(self._resident, wait=wait)
        except Exception as error:
            return self._failure(error)
        return None

    def _failure(self, error: Exception) -> Failure:
        return known_failure(error, f"{self.checkpoint.name} failed")

    async def load(self) -> None:
        """Loads and warms up the checkpoint, unless that is done. Concurrent callers wait for one load.

        Raises:
            LoadFailedError: the load failed, or an earlier one failed and the next try is not due yet.
            MemoryLimitError: the memory limit has no room for the checkpoint, no matter which others are unloaded.
        """
        self._failures.check()
        async with self._residency.using(self._resident):
            pass

    async def prepare(self) -> None:
        """Does the part of a load that needs no device memory, unless that is done.

        Raises:
            LoadFailedError: as ``load``.
        """
        await self._loading.prepare()

    async def retire(self) -> None:
        """Answers the pictures that are here already, gives the memory back and leaves the ledger: another file has
        replaced this one."""
        self._resident.evicted = lambda _reason: self._metrics.evicted("replaced")
        self._place.shut()
        await self._residency.remove(self._resident)
        await self._place.close()
        await self._batcher.close()

    async def close(self) -> None:
        """Lets the running batch finish and gives the memory back."""
        await self._batcher.close()
        await self._place.close()
        await self._loading.unload()

    async def _predict(
        self, image: bytes | Picture, deadline: float, whole: bool, caller: str, phases: Phases | None
    ) -> Prediction:
        if self._failures.last is not None:
            self._failures.check()
        # Pictures that wait for the load or are being decoded will soon need a place in the queue.
        batcher, size, arriving, arriving_bytes = self._batcher, len(image), len(self._arriving), self._arriving.size
        batcher.check_room(1 + arriving, arriving_bytes + size)
        taken, taken_bytes = batcher.queue_length + arriving, batcher.queue_bytes + arriving_bytes
        self._places.check(caller, taken, taken_bytes, size, batcher.seconds_per_item)
        self._places.take(caller, size)
        try:
            await self._entered(image, deadline, caller, phases)
            try:
                crop, decode_s = await self._decoding.decoded(image, deadline, caller, phases)
                batched = await self._batcher.submit(Input(crop, whole), deadline, crop.nbytes, phases, caller)
            finally:
                self._residency.leave(self._resident)
        finally:
            self._places.give_back(caller, size)
        probabilities, indices, distribution = batched.output
        return Prediction(
            probabilities, indices, batched.batch_size, decode_s, batched.queue_s, batched.forward_s, distribution
        )

    async def _entered(self, image: bytes | Picture, deadline: float, caller: str, phases: Phases | None) -> None:
        """Waits until the checkpoint is in memory. ``self._residency.leave`` must follow."""
        if self.at_hand:
            await self._residency.enter(self._resident)
            return
        came_at = self._clock()
        if phases is not None and not self.ready:
            phases.begin("load", came_at)
        arrival = self._arriving.begin(deadline, came_at, len(image), caller)
        try:
            await self._residency.enter(self._resident)
        finally:
            self._arriving.end(arrival)
