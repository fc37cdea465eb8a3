"""The placement of predictors in this process, and how a re-imported file replaces the one that is served."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from models.checkpoints.catalogue import Checkpoint
from models.images.outline import Outline
from service.batching.slot import DeviceSlot
from service.domain.errors import Failure, LoadFailedError, NotReadyError
from service.domain.placement import Memory, Survey
from service.domain.prediction import Limits
from service.domain.snapshot import DeviceLoad, Snapshot
from service.engines import Engine
from service.inference.decoders import Decoders
from service.profiling.profiles import Profile
from service.runtime.gpu_decoding import GpuDecoding
from service.runtime.parking import Parking
from service.runtime.predictor import Predictor
from service.runtime.residency import Residency
from service.telemetry.gauges import Reading, unwatch, watch

log = logging.getLogger(__name__)

#: A picture counts as answered long before a time if it should take no more than this part of it.
_LONG_BEFORE = 0.25
#: The longest time in seconds between two attempts to load something, while nothing could be loaded.
_LOOK_EVERY_S = 5.0


class Profiles(Protocol):
    """The source of profiles; ``profiling.profiler.Profiler`` is one."""

    def nearest(self, checkpoint: Checkpoint) -> Profile | None:
        """The best profile on file, which may be of another device; measures nothing."""
        ...

    def ensure(self, checkpoint: Checkpoint, *, measure: bool = True) -> Profile | None:
        """The profile of this device, measured if need be."""
        ...


class LocalPlacement:
    """All predictors in this process, on one device slot and one ledger. Not thread-safe: use it from one event loop.

    Args:
        load_engine: loads a checkpoint; blocking.
        limits: the limits of each predictor.
        decoders: the threads that decode pictures; the placement closes them.
        stopping: whether the service is stopping.
        profiles: the source of profiles; without one, times are guessed.
        gpu_decoding: decodes pictures on the device; the placement closes it.
        memory_limit_bytes: for all loaded checkpoints together.
        parked_limit_bytes: of host memory, for the weights of checkpoints that had to leave the device's.
        pinned: variants that stay in memory.
        prepare: does the part of a load that needs no device memory; blocking.
        device: the device's name, for people.
        clock: seconds, monotonic; deadlines are on it.
    """

    def __init__(
        self,
        load_engine: Callable[[Checkpoint], Engine],
        limits: Limits,
        *,
        decoders: Decoders | None = None,
        stopping: Callable[[], bool] = lambda: False,
        profiles: Profiles | None = None,
        gpu_decoding: GpuDecoding | None = None,
        memory_limit_bytes: int = sys.maxsize,
        parked_limit_bytes: int = 0,
        pinned: Collection[str] = (),
        prepare: Callable[[Checkpoint], None] = lambda _checkpoint: None,
        device: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._clock = clock
        self._load_engine = load_engine
        self._limits = limits
        self._stopping = stopping
        self._profiles = profiles
        self._gpu_decoding = gpu_decoding
        self._pinned = frozenset(pinned)
        self._prepare = prepare
        self._residency = Residency(memory_limit_bytes, clock)
        self._parking = Parking(parked_limit_bytes, clock)
        self._slot = DeviceSlot(clock=clock)
        self._decoders = decoders or Decoders(2)
        # A thread of its own, so that pictures are decoded while a network is loaded.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load")
        # Another one, since the first start measures for minutes, in which other networks are loaded.
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="measure")
        self._predictors: dict[str, Predictor] = {}
        self._coming: dict[str, Predictor] = {}
        """Predictors of re-imported files, by name: each takes over from the one that serves once it is loaded."""
        self._loading_coming: dict[str, asyncio.Task[None]] = {}
        self._to_serve: list[str] = []
        self._retiring: dict[asyncio.Task[None], Predictor] = {}
        self._state: str | None = "starting"
        watch(self)

    def predictor(self, checkpoint: Checkpoint) -> Predictor:
        """The predictor that serves a loadable checkpoint.

        After a re-import the new file is loaded beside the old one, whose predictor goes on serving until then if it is
        in memory. For a checkpoint that was replaced already, this is the predictor of its replacement.
        """
        found = self._predictors.get(checkpoint.name)
        if found is None:
            found = self._predictors[checkpoint.name] = self._new(checkpoint)
            self._pin(found)
        elif not _serves(found, checkpoint):
            found = self._replaced(found, checkpoint)
        return found

    def _new(self, checkpoint: Checkpoint) -> Predictor:
        return Predictor(
            checkpoint,
            self._load_engine,
            self._slot,
            self._decoders,
            self._limits,
            loading=self._loading,
            residency=self._residency,
            gpu_decoding=self._gpu_decoding,
            parking=self._parking,
            profile=self._profiles.nearest(checkpoint) if self._profiles else None,
            prepare=self._prepare,
            clock=self._clock,
        )

    def _pin(self, predictor: Predictor) -> None:
        if predictor.checkpoint.variant.name in self._pinned:
            predictor.pin()

    def _replaced(self, found: Predictor, checkpoint: Checkpoint) -> Predictor:
        """The predictor for a checkpoint, where ``found`` serves another file of the same name."""
        coming = self._coming.get(checkpoint.name)
        known = coming is not None and coming.checkpoint.same_weights(checkpoint)
        if not known and not (
            came_later(checkpoint, found.checkpoint) and (coming is None or came_later(checkpoint, coming.checkpoint))
        ):
            return found
        if not known:
            self._give_up_coming(checkpoint.name)
            coming = self._coming[checkpoint.name] = self._new(checkpoint)
        assert coming is not None
        if not found.ready:
            # The old file is not in memory, so nothing is gained by keeping it.
            self._take_over(coming)
            return coming
        if checkpoint.name not in self._loading_coming and coming.failure is None:
            task = asyncio.get_running_loop().create_task(self._load_coming(coming))
            self._loading_coming[checkpoint.name] = task
        return found

    async def _load_coming(self, coming: Predictor) -> None:
        """Loads a re-imported file, then lets it take over. Where memory has no room for both files, the new one is
        prepared, takes over, and is loaded then; queued pictures are still answered with the old weights."""
        name = coming.checkpoint.name
        try:
            if coming.has_room:
                await coming.load()
            else:
                await coming.prepare()
        except Exception as error:
            if not isinstance(error, LoadFailedError):
                log.error("%s cannot be loaded: %s", name, error)
            log.warning("%s goes on with the weights before the import", name)
        else:
            self._take_over(coming)
            if not coming.ready:
                await coming.try_load()
        finally:
            if self._coming.get(name) in (coming, None):
                self._loading_coming.pop(name, None)

    def _take_over(self, coming: Predictor) -> None:
        name = coming.checkpoint.name
        if self._coming.get(name) is not coming:
            return
        del self._coming[name]
        self._retire(self._predictors[name])
        self._predictors[name] = coming
        self._pin(coming)

    def _give_up_coming(self, name: str) -> None:
        """Drops a re-imported file that is still being loaded, because a newer one came."""
        task = self._loading_coming.pop(name, None)
        if task is not None:
            task.cancel()
        coming = self._coming.pop(name, None)
        if coming is not None:
            self._retire(coming)

    def _retire(self, predictor: Predictor) -> None:
        task = asyncio.get_running_loop().create_task(predictor.retire())
        self._retiring[task] = predictor
        task.add_done_callback(self._retiring.pop)

    def serves(self, checkpoint: Checkpoint) -> bool:
        loading = self._not_in_memory(checkpoint)
        return loading is None or loading.failure is None

    def failure(self, checkpoint: Checkpoint) -> LoadFailedError | None:
        loading = self._not_in_memory(checkpoint)
        return None if loading is None else loading.last_failure

    def _not_in_memory(self, checkpoint: Checkpoint) -> Predictor | None:
        """The predictor that would have to load the checkpoint; None if a file of that name is in memory, or if no
        predictor exists for the checkpoint yet."""
        found = self._predictors.get(checkpoint.name)
        if found is None or found.ready:
            return None
        if not found.checkpoint.same_weights(checkpoint) and came_later(checkpoint, found.checkpoint):
            found = self._coming.get(checkpoint.name)
            if found is None or not found.checkpoint.same_weights(checkpoint):
                return None
        return found

    def at_once(self, checkpoint: Checkpoint, within_s: float) -> Checkpoint | None:
        found = self._predictors.get(checkpoint.name)
        if found is None or not found.at_hand or not found.has_place or not _serves(found, checkpoint):
            return None
        waiting_s = 0.0
        for predictor in self._predictors.values():
            if predictor.soon:
                waiting_s += predictor.waiting_s
        soon = found.one_s + waiting_s + self._slot.busy_s <= _LONG_BEFORE * within_s
        return found.checkpoint if soon else None

    def resident(self, checkpoint: Checkpoint) -> bool:
        found = self._predictors.get(checkpoint.name)
        return found is not None and found.ready

    def check_ready(self) -> None:
        if self._state is not None:
            raise NotReadyError(self._state)
        if self._stopping():
            raise NotReadyError("the service is stopping")
        failing = self._failing()
        if failing:
            text = f"none of the {len(failing)} networks could be loaded" if len(failing) > 1 else "nothing is served"
            told = failing[0].last_failure
            assert told is not None
            raise LoadFailedError(f"{text}: {told}", told.retry_after_s, told.slug)

    def _failing(self) -> list[Predictor]:
        """The predictors of all checkpoints that are to be served, if every one's last load failed; else none."""
        found = [self._predictors[name] for name in self._to_serve if name in self._predictors]
        return found if all(predictor.failing for predictor in found) else []

    def survey(
        self,
        checkpoints: Sequence[Checkpoint],
        encoded_bytes: int,
        deadline: float = math.inf,
        caller: str = "",
        outline: Outline | None = None,
    ) -> Survey:
        snapshots: list[tuple[Checkpoint, Snapshot | None]] = []
        waiting, asked = [], set()
        for checkpoint in checkpoints:
            predictor = self._predictors.get(checkpoint.name)
            if predictor is None or predictor.checkpoint is not checkpoint or not predictor.ready:
                # As for one that is in memory, but it may have to be made first, or must not be asked.
                if checkpoint.state != "loadable" or not self.serves(checkpoint):
                    snapshots.append((checkpoint, None))
                    continue
                predictor = self.predictor(checkpoint)
            asked.add(predictor)
            snapshot = predictor.snapshot(encoded_bytes, deadline, caller, outline)
            # While a re-imported file is being loaded, the old one serves, and the answer must name it.
            snapshots.append((predictor.checkpoint, snapshot))
            if snapshot.queued:
                waiting.append(snapshot)
        if len(asked) < len(self._predictors):
            for predictor in self._predictors.values():
                if predictor not in asked and predictor.queued:
                    waiting.append(predictor.snapshot(encoded_bytes, deadline, caller, outline))
        busy_s = self._slot.busy_s
        return Survey(snapshots, DeviceLoad({"": busy_s}, waiting, used_s={"": self._slot.used_s}))

    def memory(self) -> list[Memory]:
        return [Memory(self._device, self._residency.limit_bytes, self._residency.held_bytes)]

    def readings(self) -> Iterator[Reading]:
        """The gauges of this placement, for Prometheus. May be called from another thread."""
        yield Reading("topfive_ready", float(self._state is None and not self._stopping()))
        if self._residency.limit_bytes < sys.maxsize:
            yield Reading("topfive_memory_limit_bytes", self._residency.limit_bytes)
        yield Reading("topfive_parked_limit_bytes", self._parking.limit_bytes)
        every = (self._predictors, self._coming, self._retiring)
        for predictor in [predictor for some in every for predictor in list(some.values())]:
            yield from predictor.readings()

    async def load(self, checkpoint: Checkpoint) -> Failure | None:
        return await self.predictor(checkpoint).try_load()

    async def unload(self, checkpoint: Checkpoint, *, wait: bool) -> Failure | None:
        return await self.predictor(checkpoint).try_unload(wait=wait)

    async def warm_up(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Measures each checkpoint that has no profile of this device, loads those that fit into memory, pinned ones
        first, and then reports ready. A checkpoint that cannot be loaded is logged in one line and answers with its
        error; the others serve."""
        for checkpoint in sorted(checkpoints, key=lambda c: c.variant.name not in self._pinned):
            self._state = f"loading {checkpoint.name}"
            self._to_serve.append(checkpoint.name)
            await self._try_to_warm_up(self.predictor(checkpoint))
        self._state = None

    async def keep_trying(self) -> None:
        """Tries to load the checkpoints again while none of them could be loaded: a service that is not ready gets no
        requests that would cause a load. Ends as soon as one is loaded."""
        while failing := self._failing():
            await asyncio.sleep(min(_LOOK_EVERY_S, *(predictor.again_in_s for predictor in failing)))
            for predictor in failing:
                if predictor.failure is None:
                    await self._try_to_warm_up(predictor)

    async def _try_to_warm_up(self, predictor: Predictor) -> None:
        try:
            await self._warm_up(predictor)
        except LoadFailedError:
            pass  # the predictor has logged it
        except Exception as error:
            log.error("%s cannot be loaded: %s", predictor.checkpoint.name, error)

    async def _warm_up(self, predictor: Predictor) -> None:
        loop = asyncio.get_running_loop()
        if self._profiles is not None:
            # A checkpoint that cannot be prepared cannot be measured either; this error explains it better.
            await predictor.prepare()
            predictor.expect(await loop.run_in_executor(self._measuring, self._profiles.ensure, predictor.checkpoint))
        if predictor.has_room:
            await predictor.load()
        else:
            await predictor.prepare()

    async def close(self) -> None:
        """Closes every predictor after its running batch, then the device and the threads."""
        self._state = "the service is stopping"
        unwatch(self)
        for task in self._loading_coming.values():
            task.cancel()
        for predictor in (*self._predictors.values(), *self._coming.values()):
            await predictor.close()
        if self._gpu_decoding is not None:
            await self._gpu_decoding.close()
        await self._residency.close()
        self._slot.close()
        self._decoders.close()
        for pool in (self._loading, self._measuring):
            pool.shutdown(wait=False, cancel_futures=True)


def came_later(checkpoint: Checkpoint, than: Checkpoint) -> bool:
    """Whether a checkpoint's file replaced another file of the same name, and not the other way round. Requests that
    were decided on before an import still name the older file."""
    if checkpoint.modified_ns is None:
        # A checkpoint that ships with the service has no time. It is back once the imported file is removed.
        return than.modified_ns is None or than.path is None or not than.path.exists()
    if than.modified_ns is None:
        # An import replaced a shipped checkpoint, unless the import was removed meanwhile.
        return checkpoint.path is None or checkpoint.path.exists()
    if checkpoint.modified_ns > than.modified_ns:
        return True
    # After the system's clock was set back, a new file looks older; but it is the file that exists.
    return checkpoint.modified_ns < than.modified_ns and _exists(checkpoint)


def _exists(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's path still has the file that the checkpoint was read from."""
    try:
        return checkpoint.path is not None and checkpoint.path.stat().st_ctime_ns == checkpoint.modified_ns
    except OSError:
        return False


def _serves(predictor: Predictor, checkpoint: Checkpoint) -> bool:
    """Whether a predictor serves a checkpoint; if so, it answers with this accuracy, which may have been measured
    since."""
    if predictor.checkpoint is checkpoint:
        return True
    same = predictor.checkpoint.same_weights(checkpoint)
    if same:
        predictor.checkpoint = checkpoint
    return same
