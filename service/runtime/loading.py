"""Loading one checkpoint: its engine comes into memory and leaves it, and what failed is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from models.checkpoints.catalogue import Checkpoint
from service.batching.slot import DeviceSlot
from service.domain.errors import LoadFailedError
from service.engines import Engine
from service.runtime.forward import ForwardPasses
from service.runtime.gpu_decoding import GpuDecoding
from service.runtime.load_failures import LoadFailures
from service.runtime.parking import Parking
from service.runtime.resident import Needs, Resident
from service.telemetry.recorder import PredictorMetrics

T = TypeVar("T")


class Loading:
    """Makes a checkpoint's engine and closes it, when residency asks for that.

    Args:
        checkpoint: what is loaded.
        load_engine: makes the engine; blocks, and is called in ``thread``.
        prepare: does the part of a load that needs no device memory; blocks, and is called in ``thread``.
        slot: the device.
        thread: where weights are loaded, parked and woken.
        passes: run on the engine while there is one, and have the forecast of what a load takes.
        metrics: count loads and evictions.
        parking: the host memory for weights that leave the device.
        gpu_decoding: judges whether the checkpoint may have the GPU's pictures; None where it decodes none.
        max_batch_size: up to which the engine is warmed up.
        pinned: whether the checkpoint stays in memory once it is loaded.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        load_engine: Callable[[Checkpoint], Engine],
        prepare: Callable[[Checkpoint], None],
        slot: DeviceSlot,
        thread: Executor,
        passes: ForwardPasses,
        metrics: PredictorMetrics,
        parking: Parking,
        gpu_decoding: GpuDecoding | None,
        *,
        max_batch_size: int,
        pinned: bool,
        clock: Callable[[], float],
    ) -> None:
        self._checkpoint = checkpoint
        self._load_engine = load_engine
        self._prepare = prepare
        self._prepared = False
        self._slot = slot
        self._thread = thread
        self._passes = passes
        self._metrics = metrics
        self._gpu_decoding = gpu_decoding
        self._max_batch_size = max_batch_size
        self._clock = clock
        self.failures = LoadFailures(checkpoint, clock)
        self.resident = Resident(
            checkpoint.name,
            load=self._load,
            unload=self.unload,
            prepare=self.prepare,
            needs=lambda: Needs(passes.forecast.footprint_bytes, passes.forecast.load_peak_bytes),
            load_s=lambda: passes.forecast.wake_s if self.place.parked else passes.forecast.load_s,
            worth=(checkpoint.top1 or 50.0) / 100,
            pinned=pinned,
            evicted=metrics.evicted,
        )
        """The checkpoint's entry in the ledger of device memory."""
        self.place = parking.place(self.resident, thread)
        """Where its weights are parked."""

    async def prepare(self) -> None:
        """Does the part of a load that needs no device memory, unless that is done.

        Raises:
            LoadFailedError: it failed, or an earlier load did and the next try is not due yet.
        """
        if self._prepared:
            return
        self.failures.check()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._prepare, self._checkpoint)
        except Exception as error:
            raise self._not_loaded(error) from error
        self._prepared = True

    def _not_loaded(self, error: Exception) -> LoadFailedError:
        self._metrics.not_loaded()
        self._prepared = False
        return self.failures.failed(error)

    async def _load(self) -> None:
        self.failures.check()
        loop = asyncio.get_running_loop()
        wake = self.place.waking()
        try:
            engine, load_s = await loop.run_in_executor(
                self._thread, self._timed, wake or (lambda: self._load_engine(self._checkpoint))
            )
            try:
                async with self._slot.taken():
                    _, warm_up_s = await self._slot.run(
                        lambda: self._timed(lambda: engine.warm_up(self._max_batch_size))
                    )
                    if self._gpu_decoding is not None:
                        judge = self._gpu_decoding.judge
                        await self._slot.run(lambda: judge(self._checkpoint, engine))
            except BaseException:
                engine.close()
                raise
        except Exception as error:
            raise self._not_loaded(error) from error
        self.failures.succeeded()
        self._prepared = True
        self._metrics.loaded(load_s + warm_up_s, woken=wake is not None)
        self._passes.use(engine)

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """Runs blocking work; returns its result and its seconds, without the wait for the thread that it runs on."""
        started = self._clock()
        return work(), self._clock() - started

    async def unload(self) -> None:
        """Closes the engine. Its weights are parked if they may be."""
        engine = self._passes.use(None)
        if engine is not None:
            await self.place.park(engine)
            # On the slot's thread: another checkpoint's batch may be on the device.
            async with self._slot.taken():
                await self._slot.run(engine.close)
