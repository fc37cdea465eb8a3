"""A GPU without CUDA: its streams run as late, or as early, as their events allow, and it has as much memory as a test
says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

from service.engines.overlap import Event

Work = Callable[[], object]


class FakeStream:
    def __init__(self, name: str, log: list[str], *, eager: bool) -> None:
        self.name, self.log, self.eager = name, log, eager
        self.refused = 0
        """How many of the next launches find no memory."""
        self.queue: deque[Work] = deque()
        self.queued = self.done = 0

    def run(self, work: Work) -> None:
        self.log.append(self.name)
        if self.refused:
            self.refused -= 1
            need(False)
        self._put(work)

    def record(self) -> FakeEvent:
        return FakeEvent(self, self.queued)

    def wait(self, event: Event) -> None:
        assert isinstance(event, FakeEvent)
        self._put(lambda: event.stream.reach(event.position))

    @torch.inference_mode()
    def reach(self, position: int) -> None:
        while self.done < position:
            self.done += 1
            self.queue.popleft()()

    def _put(self, work: Work) -> None:
        self.queue.append(work)
        self.queued += 1
        if self.eager:
            self.reach(self.queued)


class FakeEvent:
    def __init__(self, stream: FakeStream, position: int) -> None:
        self.stream, self.position = stream, position

    def synchronize(self) -> None:
        self.stream.log.append("await")
        self.stream.reach(self.position)


class FakeBlock:
    def __init__(self, device: FakeDevice, size: int) -> None:
        self.device = device
        self.memory = torch.full((size,), 79, dtype=torch.uint8)

    def free(self) -> None:
        self.device.locked_bytes -= len(self.memory)
        # Whoever reads it afterwards gets nonsense.
        self.memory.fill_(255)
        del self.memory


class FakeDevice:
    """``eager`` names the streams that do their work at once; others do it as late as they may."""

    where = torch.device("cpu")

    def __init__(self, *eager: str) -> None:
        self.log: list[str] = []
        self.copying = FakeStream("copy", self.log, eager="copy" in eager)
        self.computing = FakeStream("compute", self.log, eager="compute" in eager)
        self.loading = FakeStream("load", self.log, eager="load" in eager)
        self.captured: list[int] = []
        self.fits: float = float("inf")
        """Pictures beyond which a capture fails."""
        self.replays: float = float("inf")
        """Pictures beyond which a replay does."""
        self.rows: float = float("inf")
        """Rows beyond which plain memory is refused."""
        self.locks: float = float("inf")
        """Bytes beyond which host memory is not locked."""
        self.locked_bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        need(shape[0] <= self.rows)
        return torch.full(shape, 77, dtype=dtype)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.full(shape, 78, dtype=dtype)

    def locked(self, size: int) -> FakeBlock:
        if self.locked_bytes + size > self.locks:
            raise RuntimeError("CUDA error: cannot be page-locked")
        self.locked_bytes += size
        return FakeBlock(self, size)

    def capture(self, size: int, work: Work) -> Work:
        self.captured.append(size)
        need(size <= self.fits)
        work()

        def replay() -> None:
            need(size <= self.replays)
            work()

        return replay

    def reclaim(self) -> None:
        assert not self.copying.queue, "memory is freed that a copy is still to use"
        assert not self.computing.queue, "memory is freed that a graph is still to use"
        self.log.append("reclaim")


def need(fits: bool) -> None:
    if not fits:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 42 TiB.")
