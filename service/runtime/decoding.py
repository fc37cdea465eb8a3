"""Decoding the pictures of one checkpoint: where each is decoded, and what is told of it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from models.checkpoints.catalogue import Checkpoint
from models.images.cost import Work, work_of
from models.images.outline import Outline, glance
from service.domain.picture import Decoded, Picture
from service.inference.decoders import Decoders, outrun_s
from service.inference.decoding import Crop, decode_small, is_small
from service.runtime.arriving import Arriving
from service.runtime.forward import ForwardPasses
from service.runtime.gpu_decoding import GpuDecoding
from service.telemetry.picture_spans import Phases

#: How long a picture of which nothing is known counts as arriving.
_UNKNOWN_S = 1.0


class Decoding:
    """Decodes a checkpoint's pictures: at once, in a thread, on the GPU, or in the process that has the bytes.

    Args:
        checkpoint: whose input they become.
        max_pixels: of a picture.
        decoders: the threads.
        gpu: decodes on the device; None where nothing is decoded there.
        arriving: the pictures that are not queued yet.
        passes: have the forecast that learns from each.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        max_pixels: int,
        decoders: Decoders,
        gpu: GpuDecoding | None,
        arriving: Arriving,
        passes: ForwardPasses,
        clock: Callable[[], float],
    ) -> None:
        self._checkpoint = checkpoint
        self._max_pixels = max_pixels
        self._decoders = decoders
        self._gpu = gpu
        self._arriving = arriving
        self._passes = passes
        self._clock = clock

    async def decoded(self, image: bytes | Picture, deadline: float, caller: str, phases: Phases | None) -> Decoded:
        """The network's input, and how many seconds it took to decode."""
        began = started = self._clock()
        if phases is not None:
            ahead = None if isinstance(image, bytes) else image.here(self._checkpoint.preprocess)
            began = started if ahead is None else started - ahead.decode_s
            phases.begin("decode", began)
        decoded = self._decoded_at_once(image, started)
        outline = None
        if decoded is None:
            outline = glance(image) if isinstance(image, bytes) else image.outline
            decoded = await self._decoded_soon(image, outline, deadline, started, caller)
        self._passes.forecast.learn_decode(len(image), decoded.decode_s, outline)
        if phases is not None:
            phases.over(began + decoded.decode_s)
        return decoded

    def _decoded_at_once(self, image: bytes | Picture, started: float) -> Decoded | None:
        """The picture, if it is decoded already, or so small that a thread would take longer to begin."""
        preprocess = self._checkpoint.preprocess
        if not isinstance(image, bytes):
            return image.here(preprocess)
        crop = decode_small(image, preprocess, self._max_pixels)
        return None if crop is None else Decoded(crop, self._clock() - started)

    async def _decoded_soon(
        self, image: bytes | Picture, outline: Outline | None, deadline: float, started: float, caller: str
    ) -> Decoded:
        """The picture, once a thread, the GPU or another process has decoded it. It counts as arriving meanwhile,
        unless it is long in coming."""
        # Of a picture that another process has, nothing may be known, which says nothing against it.
        unknown = outline is None and not isinstance(image, bytes)
        work = None if unknown else work_of(outline, self._checkpoint.preprocess)
        far = work is not None and work.dear
        arrival = self._arriving.begin(deadline, started, len(image), caller, far=far)

        def outran() -> None:
            nonlocal arrival
            arrival = self._arriving.outran(arrival)

        timer = asyncio.get_running_loop().call_later(_UNKNOWN_S if work is None else outrun_s(work), outran)
        try:
            return await self._decoded_elsewhere(image, work, started, caller)
        finally:
            timer.cancel()
            self._arriving.end(arrival)

    async def _decoded_elsewhere(
        self, image: bytes | Picture, work: Work | None, started: float, caller: str
    ) -> Decoded:
        preprocess, max_pixels = self._checkpoint.preprocess, self._max_pixels
        crop = await self._decoded_on_gpu(image)
        if crop is None:
            if not isinstance(image, bytes):
                return await image.decoded(preprocess, max_pixels)
            crop = await self._decoders.decode(image, preprocess, max_pixels, work, caller)
        return Decoded(crop, self._clock() - started)

    async def _decoded_on_gpu(self, image: bytes | Picture) -> Crop | None:
        """The crop, if the GPU decodes such pictures for this checkpoint."""
        gpu, checkpoint = self._gpu, self._checkpoint
        if gpu is None or not gpu.passed(checkpoint):
            return None
        if isinstance(image, bytes):
            return await gpu.decode(image, checkpoint, self._max_pixels)
        # A small picture is decoded by the time its file would be here.
        file = None if is_small(len(image)) else await image.file()
        return None if file is None else await gpu.decode(file, checkpoint, self._max_pixels)
