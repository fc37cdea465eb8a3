"""The decoding threads of a process: which pictures they take, and when.

    picture ─priced─▶ cheap ─────────────────────────────▶ a thread of the ordinary lane
                  └─▶ dear ─waits for memory, in order──▶ a thread of the narrow lane

A picture's price is known before it is decoded (``models.images.cost``). Dear pictures have a lane of their own, so
that ordinary ones never wait for them, and together they never hold more memory than ``most.held``. A decode that
outruns its price by far gives its place in the lane to the next picture: whoever sent it waits, its neighbours do not.
The next picture is one of the caller with the fewest in the lane, so that nobody's many pictures make others wait.

What decoding took and freed is given back to the system once nothing has been decoded for a while: the C library keeps
it else, some ten megabytes more after each unusual picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from models.images.cost import UNBOUNDED, Price, Work, work_of
from models.images.outline import glance
from models.images.preprocess import Preprocess
from service.engines import give_memory_back
from service.inference.decoding import Crop, decode
from service.inference.lane import Lane

#: A decode has outrun its price after so many times the price, and not before this many seconds.
_FAR, _FAR_S = 5.0, 0.25
#: How many decodes that outran their price may go on beside the others, for each thread.
_OUTRUN = 3
#: How many ordinary pictures are decoded at once for each core: a place is passed on by the event loop, and a core
#: would idle until that has time. (On two cores one front decodes 15 % more photographs than with one for each.)
_FOR_EACH = 4
#: After so many seconds without decoding, freed memory is given back. While pictures come, it would be taken again at
#: once, which costs half as much as decoding a photograph.
_REST_S = 1.0


def outrun_s(work: Work) -> float:
    """After how many seconds a decode has outrun its price by far."""
    return max(_FAR_S, _FAR * work.price.seconds)


class Decoders:
    """Decodes pictures in threads. Not thread-safe: use it from one event loop.

    Args:
        threads: for how many cores: half as many dear pictures are decoded at once, and ordinary ones beside them.
        most: what a picture may take; and the bytes that all dear ones together may hold.
        pool: runs the decodes; threads of its own by default. A simulation has others.
    """

    def __init__(self, threads: int, most: Price = UNBOUNDED, pool: Executor | None = None) -> None:
        self.width = threads
        self.most = most
        # Threads are started as they are needed.
        self.threads = pool or ThreadPoolExecutor(
            (_FOR_EACH + _OUTRUN + 1 + _OUTRUN) * threads, thread_name_prefix="decode"
        )
        self._ordinary = Lane(_FOR_EACH * threads, UNBOUNDED.held, _OUTRUN * threads)
        narrow = max(1, threads // 2)
        self._narrow = Lane(narrow, most.held, _OUTRUN * narrow)
        self._running = 0
        self._rest: asyncio.TimerHandle | None = None

    async def decode(
        self,
        image: bytes,
        preprocess: Preprocess,
        max_pixels: int,
        work: Work | None = None,
        caller: str = "",
    ) -> Crop:
        """Decodes a picture. Cancelling the caller frees its place in line; a thread that has begun goes on.

        Args:
            image: the encoded picture.
            preprocess: what it is decoded for.
            max_pixels: the limit of width times height.
            work: its work, if that is known.
            caller: who sent it.

        Raises:
            PictureError: it is refused.
        """
        if work is None:
            work = work_of(glance(image), preprocess)
        return await self.run(partial(decode, image, preprocess, max_pixels, self.most), work, caller)

    async def run(self, decode: Callable[[], Crop], work: Work, caller: str) -> Crop:
        """Has a thread decode a picture, once it has a place in the lane of such work.

        Args:
            decode: decodes it; blocks.
            work: what that takes.
            caller: who sent it.

        Raises:
            Exception: whatever ``decode`` raises.
        """
        lane = self._narrow if work.dear else self._ordinary
        held = min(work.price.held, self.most.held)
        await lane.enter(held, caller)
        loop = asyncio.get_running_loop()
        place = _Place(lane, held, caller)
        timer = loop.call_later(outrun_s(work), place.leave_line)

        answer: asyncio.Future[Crop] = loop.create_future()

        def ended(done: Future[Crop]) -> None:
            # The event loop may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(answered, done)

        def answered(done: Future[Crop]) -> None:
            # Both in one turn of the event loop.
            over()
            if not answer.done():
                _answer(answer, done)

        def over() -> None:
            timer.cancel()
            place.leave()
            self._running -= 1
            if not self._running:
                self._rest = loop.call_later(_REST_S, self._give_back)

        self._running += 1
        if self._rest is not None:
            self._rest.cancel()
        try:
            future = self.threads.submit(decode)
        except BaseException:
            over()
            raise
        future.add_done_callback(ended)
        try:
            return await answer
        except asyncio.CancelledError:
            # Unless a thread has begun with it.
            future.cancel()
            raise

    def _give_back(self) -> None:
        with suppress(RuntimeError):  # closed in the meantime
            self.threads.submit(give_memory_back)

    def close(self) -> None:
        """Ends the threads, once the pictures that they decode are done."""
        if self._rest is not None:
            self._rest.cancel()
        self.threads.shutdown(wait=False, cancel_futures=True)


def _answer(answer: asyncio.Future[Crop], done: Future[Crop]) -> None:
    if done.cancelled():
        answer.cancel()
    elif (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


class _Place:
    """One picture's place in a lane."""

    __slots__ = ("_caller", "_held", "_in_line", "_lane")

    def __init__(self, lane: Lane, held: int, caller: str) -> None:
        self._lane, self._held, self._caller, self._in_line = lane, held, caller, True

    def leave_line(self) -> None:
        """Lets the next picture have the place."""
        if self._lane.step_aside(self._caller):
            self._in_line = False

    def leave(self) -> None:
        """Gives everything back: the picture is decoded."""
        self._lane.leave(self._held, self._caller, place=self._in_line)
