"""Moves batches through a device so that the next batch is copied while the one before it is computed.

    crops ─host─▶ pinned ─copying stream─▶ staged ─computing stream─▶ input, graph, output, pinned ─host─▶ TopK

There are two places, each with pinned and staged memory: one batch can be on its way to the device while the other is
computed. All graphs read the same input and write the same output; only the computing stream touches these, so they are
used in order. A place is occupied until the host has read its answers; by then both streams have finished with it.

``submit`` queues work and returns at once; ``collect`` waits. A caller that submits a batch before it collects the
previous one overlaps the two. A batch larger than the largest bucket is split into chunks, which overlap likewise.
This file does not depend on CUDA: ``Device`` is the interface that it needs of a GPU.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from service.engines import TopK
from service.engines.buckets import Buckets

log = logging.getLogger(__name__)

Work = Callable[[], object]
#: uint8 (N, side, side, channels) on the device, and float32 (N, classes) for the probabilities of all classes ->
#: probabilities (N, k) and class numbers (N, k).
Forward = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Blocks until the stream has reached this point."""
        ...


class Stream(Protocol):
    """A queue of device work that is done in order, concurrently with the host and other streams."""

    def run(self, work: Work) -> None:
        """Queues the device operations that ``work`` launches, and returns at once."""
        ...

    def record(self) -> Event:
        """The point after everything that has been queued."""
        ...

    def wait(self, event: Event) -> None:
        """Makes everything that is queued from now on start after ``event`` of another stream."""
        ...


class LockedBlock(Protocol):
    """A large block of page-locked host memory."""

    @property
    def memory(self) -> torch.Tensor:
        """uint8 (bytes,)"""
        ...

    def free(self) -> None:
        """Gives the memory back to the operating system. Nothing may use it any more."""
        ...


class Device(Protocol):
    """What is needed of a GPU."""

    @property
    def where(self) -> torch.device: ...

    @property
    def copying(self) -> Stream: ...

    @property
    def computing(self) -> Stream: ...

    @property
    def loading(self) -> Stream:
        """Carries weights, so that the crops of other checkpoints do not wait behind a network that is loaded."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Uninitialised memory on the device."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Page-locked host memory, which the device copies from and to without the CPU."""
        ...

    def locked(self, size: int) -> LockedBlock:
        """Page-locked host memory of exactly so many bytes, for weights.

        Raises:
            RuntimeError: there is not enough, or it cannot be locked.
        """
        ...

    def capture(self, size: int, work: Work) -> Work:
        """Captures ``work``, for ``size`` pictures, as a graph; returns a function that replays it on the current
        stream."""
        ...

    def reclaim(self) -> None:
        """Frees the device memory of graphs and tensors that are gone. No graph may be left."""
        ...


@dataclass(slots=True, eq=False)
class Submitted:
    """A submitted batch. Its crops must not change until it is collected."""

    crops: npt.NDArray[np.uint8]
    whole: bool = False
    """Whether the probabilities of all classes are wanted too."""
    begun: int = 0
    """Pictures that are on their way or answered."""
    answers: list[TopK] = field(default_factory=list)
    answered: int = 0


@dataclass(slots=True, eq=False)
class _Place:
    crops: torch.Tensor
    """Pinned."""
    staged: torch.Tensor
    """On the device."""
    probabilities: torch.Tensor
    indices: torch.Tensor
    distributions: torch.Tensor
    """All three pinned."""


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    batch: Submitted
    size: int
    place: _Place
    done: Event


class _Memory:
    """The memory that batches of up to ``rows`` pictures need beside the network, and their graphs."""

    def __init__(self, device: Device, rows: int, crop: tuple[int, int, int], k: int, classes: int) -> None:
        # Padding rows are computed too, and their answers ignored. They may hold anything: any byte is a valid pixel.
        self.input = device.empty((rows, *crop), torch.uint8)
        self.probabilities = device.empty((rows, k), torch.float32)
        self.indices = device.empty((rows, k), torch.int64)
        self.distributions = device.empty((rows, classes), torch.float32)
        self.graphs: dict[int, Work] = {}
        self.free = deque(
            _Place(
                device.pinned((rows, *crop), torch.uint8),
                device.empty((rows, *crop), torch.uint8),
                device.pinned((rows, k), torch.float32),
                device.pinned((rows, k), torch.int64),
                device.pinned((rows, classes), torch.float32),
            )
            for _ in range(2)
        )


class Overlap:
    """Answers batches of one checkpoint. Allocates memory and captures graphs when they are first needed.

    Args:
        device: where batches are computed.
        buckets: the batch sizes; they shrink when memory runs out.
        forward: the network, from crops to probabilities and class numbers.
        crop: side, side, channels.
        k: number of classes that ``forward`` answers with.
        classes: number of classes in all.
    """

    def __init__(
        self, device: Device, buckets: Buckets, forward: Forward, *, crop: tuple[int, int, int], k: int, classes: int
    ) -> None:
        self._device = device
        self._buckets = buckets
        self._forward = forward
        self._shapes = crop, k, classes
        self._memory: _Memory | None = None
        self._under_way: deque[_Chunk] = deque()

    @torch.inference_mode()
    def submit(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> Submitted:
        """Begins as much of a batch as there are free places for.

        Raises:
            OutOfDeviceMemoryError: not even one picture fits.
        """
        batch = Submitted(crops, whole)
        self._begin(batch)
        return batch

    @torch.inference_mode()
    def collect(self, batch: Submitted) -> TopK:
        """Waits for a batch. Batches submitted before it are answered on the way; their answers are kept.

        Raises:
            OutOfDeviceMemoryError: not even one picture fits.
        """
        while batch.answered < len(batch.crops):
            self._begin(batch)
            self._finish_oldest()
        wholes = [part.distributions for part in batch.answers if part.distributions is not None]
        return TopK(
            np.concatenate([part.probabilities for part in batch.answers]),
            np.concatenate([part.indices for part in batch.answers]),
            np.concatenate(wholes) if wholes else None,
        )

    def close(self) -> None:
        """Waits for the batches that are under way, drops their answers, and frees all memory, the network's too.

        It may be called while another thread captures a graph of another checkpoint. Waiting for anything but these
        events, above all for the whole device, would spoil that capture.
        """
        while self._under_way:
            self._under_way.popleft().done.synchronize()
        del self._forward
        self._memory = None
        self._device.reclaim()

    def _begin(self, batch: Submitted) -> None:
        """Starts chunk after chunk while there is a free place."""
        while batch.begun < len(batch.crops):
            size = min(self._buckets.largest, len(batch.crops) - batch.begun)
            bucket = self._buckets.holding(size)
            try:
                if self._memory is None:
                    self._memory = _Memory(self._device, self._buckets.largest, *self._shapes)
                if not self._memory.free:
                    return
                self._start(batch, size, bucket, self._memory)
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler the error is gone, and with it the frames that kept the activations alive. The memory
            # was allocated for the largest bucket, so that is the one to halve, whichever was being prepared.
            self._shrink(self._buckets.largest)

    def _start(self, batch: Submitted, size: int, bucket: int, memory: _Memory) -> None:
        replay = memory.graphs.get(bucket)
        if replay is None:
            replay = memory.graphs[bucket] = self._capture(bucket, memory)
        place = memory.free[0]
        place.crops[:size].numpy()[:] = batch.crops[batch.begun : batch.begun + size]

        def copy() -> None:
            place.staged[:size].copy_(place.crops[:size], non_blocking=True)

        def compute() -> None:
            memory.input[:size].copy_(place.staged[:size], non_blocking=True)
            replay()
            place.probabilities[:size].copy_(memory.probabilities[:size], non_blocking=True)
            place.indices[:size].copy_(memory.indices[:size], non_blocking=True)
            if batch.whole:
                place.distributions[:size].copy_(memory.distributions[:size], non_blocking=True)

        self._device.copying.run(copy)
        self._device.computing.wait(self._device.copying.record())
        self._device.computing.run(compute)
        self._under_way.append(_Chunk(batch, size, place, self._device.computing.record()))
        memory.free.popleft()
        batch.begun += size

    def _capture(self, bucket: int, memory: _Memory) -> Work:
        def work() -> None:
            probabilities, indices = self._forward(memory.input[:bucket], memory.distributions[:bucket])
            # Into memory outside the graphs' own, which they share: the next graph would overwrite the answers.
            memory.probabilities[:bucket].copy_(probabilities)
            memory.indices[:bucket].copy_(indices)

        return self._device.capture(bucket, work)

    def _finish_oldest(self) -> None:
        chunk = self._under_way.popleft()
        chunk.done.synchronize()
        place, batch = chunk.place, chunk.batch
        # Copies, because the next batch reuses the place.
        answers = [place.probabilities, place.indices, *([place.distributions] if batch.whole else [])]
        batch.answers.append(TopK(*(answer[: chunk.size].numpy().copy() for answer in answers)))
        batch.answered += chunk.size
        if self._memory is not None:
            self._memory.free.append(place)

    def _shrink(self, bucket: int) -> None:
        """Halves the bucket that did not fit, and drops all memory and graphs; they are made again for the new size."""
        while self._under_way:
            self._finish_oldest()
        # The failed attempt may have left a copy in a stream.
        for stream in (self._device.copying, self._device.computing):
            stream.record().synchronize()
        self._memory = None
        self._device.reclaim()
        self._buckets.halve(bucket)
        log.warning(
            "out of memory with a batch of %d; batches hold at most %d pictures from now on",
            bucket,
            self._buckets.largest,
        )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it hides, is a lack of memory: ending a capture that ran out of memory raises an
    error of its own."""
    while error is not None:
        text = str(error)
        if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in text or "ALLOC_FAILED" in text:
            return True
        error = error.__cause__ or error.__context__
    return False
