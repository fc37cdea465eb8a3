"""Decoding on a GPU (``TOPFIVE_DECODE=gpu``): which pictures it gets, and how those that wait are decoded together.

    picture ─ordinary JPEG?─▶ waiting ─all that wait, one call─▶ crop
                │no                        │failed
                └───────▶ Pillow ◀─────────┘

Whatever the GPU does not decode is left to Pillow, which decodes it or says why not: no picture is refused because of
this file. Of the checkpoints only those that passed ``decode_gate.py`` get its crops.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from models.checkpoints.catalogue import Checkpoint
from models.images.baseline import Baseline, baseline
from models.images.preprocess import Preprocess
from service.engines import Engine
from service.inference.decoding import Crop
from service.runtime.decode_gate import BatchDecoder, Verdict, compare
from service.runtime.decode_gate_pictures import files

log = logging.getLogger(__name__)

#: The most files in one call.
MOST_FILES = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    file: Baseline
    preprocess: Preprocess
    answer: asyncio.Future[Crop | Exception]


class GpuDecoding:
    """Decodes the pictures of all checkpoints of a process. Not thread-safe, except for ``judge``: use it from one
    event loop.

    Args:
        decoder: decodes a batch.
        takes: whether the decoder makes crops for a preprocessing.
        most_pixels: a larger picture is left to Pillow.
        held_bytes: what decoding may take of the device's memory.
        gate: compares a checkpoint's answers; ``decode_gate.compare``, or another one in tests.
    """

    def __init__(
        self,
        decoder: BatchDecoder,
        takes: Callable[[Preprocess], bool],
        most_pixels: int,
        held_bytes: int = 0,
        gate: Callable[[Engine, BatchDecoder, Preprocess], Verdict] = compare,
    ) -> None:
        self._decoder = decoder
        self._takes = takes
        self._most_pixels = most_pixels
        self._gate = gate
        self.held_bytes = held_bytes
        """What decoding may take of the device's memory."""
        self._judged: dict[str, tuple[Checkpoint, bool]] = {}
        """By name: the checkpoint that was judged, and whether it passed."""
        self._waiting: deque[_Waiting] = deque()
        self._running: asyncio.Task[None] | None = None
        # One thread: the GPU has its batch from it while the next one gathers.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu-decode")

    def judge(self, checkpoint: Checkpoint, engine: Engine) -> None:
        """Decides whether a checkpoint gets the GPU's crops, once for each file of weights. Blocks; call it in the
        thread in which the engine runs, after it is warm."""
        known, _ = self._judged.get(checkpoint.name, (None, False))
        if known == checkpoint or not self._takes(checkpoint.preprocess):
            return
        try:
            verdict = self._gate(engine, self._decoder, checkpoint.preprocess)
            passed, why = verdict.passed, str(verdict)
        except Exception as error:
            passed, why = False, f"{type(error).__name__}: {error}"
        self._judged[checkpoint.name] = (checkpoint, passed)
        if passed:
            log.info("%s: the GPU decodes its pictures: %s", checkpoint.name, why)
        else:
            log.warning("%s: the CPU decodes its pictures, TOPFIVE_DECODE=gpu does not pass: %s", checkpoint.name, why)

    def passed(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint gets the GPU's crops: ``judge`` has passed this very file of weights."""
        known, passed = self._judged.get(checkpoint.name, (None, False))
        # Usually it is the same object, which is faster to see than equality.
        return passed and (known is checkpoint or known == checkpoint)

    async def decode(self, image: bytes, checkpoint: Checkpoint, max_pixels: int) -> Crop | None:
        """The crop of a picture, or None if Pillow has to decode it.

        Args:
            image: a file's bytes, as the client sent them.
            checkpoint: a loaded checkpoint; before ``judge`` has passed it, the answer is None.
            max_pixels: the limit of width times height.
        """
        if not self.passed(checkpoint):
            return None
        file = baseline(image, max_pixels=min(max_pixels, self._most_pixels))
        if file is None:
            return None
        loop = asyncio.get_running_loop()
        waiting = _Waiting(file, checkpoint.preprocess, loop.create_future())
        self._waiting.append(waiting)
        if self._running is None:
            self._running = loop.create_task(self._run())
        answer = await waiting.answer
        return None if isinstance(answer, Exception) else answer

    async def _run(self) -> None:
        """Decodes batch after batch until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next():
                files, preprocess = [waiting.file for waiting in batch], batch[0].preprocess
                answers: list[Crop | Exception]
                try:
                    answers = await loop.run_in_executor(self._thread, self._decoder.decode_batch, files, preprocess)
                except Exception as error:
                    answers = [error] * len(batch)
                for waiting, answer in zip(batch, answers, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(answer)
        finally:
            self._running = None

    def _next(self) -> list[_Waiting]:
        """The oldest picture, and those behind it that can be decoded with it. Those that nobody waits for any more are
        dropped."""
        present = [waiting for waiting in self._waiting if not waiting.answer.done()]
        batch: list[_Waiting] = []
        pixels = 0
        for waiting in present:
            size = waiting.file.size[0] * waiting.file.size[1]
            if waiting.preprocess != present[0].preprocess:
                continue
            if len(batch) == MOST_FILES or (batch and pixels + size > self._most_pixels):
                break
            batch.append(waiting)
            pixels += size
        taken = set(batch)
        self._waiting = deque(waiting for waiting in present if waiting not in taken)
        return batch

    async def close(self) -> None:
        """Leaves what waits to Pillow, lets the running batch finish and ends the thread."""
        self._judged.clear()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                waiting.answer.set_result(RuntimeError("closed"))
        if self._running is not None:
            await self._running
        self._thread.shutdown(wait=False)


def gpu_decoding(device: str) -> GpuDecoding | None:
    """Decoding on a GPU; None, with one line in the log, if this process cannot do it: the service then answers as
    ever, only not faster.

    Args:
        device: what the networks run on, ``cpu`` or ``cuda:N``.
    """
    try:
        if device == "cpu":
            raise RuntimeError("the networks run on a CPU")
        from service.engines.jpeg_gpu import HELD_BYTES, MOST_PIXELS, GpuJpegs, takes

        found = GpuDecoding(GpuJpegs.on(device), takes, MOST_PIXELS, HELD_BYTES)
    except (ImportError, RuntimeError) as error:
        why = "torchvision is not installed" if isinstance(error, ImportError) else error
        no_gpu_decoding(str(why))
        return None
    # They take seconds to draw, which no load on the device has to wait for.
    files()
    return found


def no_gpu_decoding(why: str) -> None:
    """Logs that this process does not decode on a GPU, although it was asked to."""
    log.warning("TOPFIVE_DECODE=gpu has no effect, the CPU decodes all pictures: %s", why)
