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
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from models.images.cost import UNBOUNDED, Price, Work, work_of
from models.images.outline import glance
from models.images.preprocess import Preprocess
from service.engines import give_memory_back
from service.inference.decoding import Crop, decode
from service.inference.lane import Lane, Place

#: A decode has outrun its price after so many times the price, and not before this many seconds.
_FAR, _FAR_S = 5.0, 0.25
#: How many decodes that outran their price may go on beside the others, for each thread.
_OUTRUN = 3
#: How often those that are being decoded are looked at.
_LOOK_EVERY_S = 0.1
#: After so many seconds without decoding, freed memory is given back. While pictures come, it would be taken again at
#: once, which costs half as much as decoding a photograph.
_REST_S = 1.0


def outrun_s(work: Work) -> float:
    """After how many seconds a decode has outrun its price by far."""
    return max(_FAR_S, _FAR * work.price.seconds)


class Decoders:
    """Decodes pictures in threads. Not thread-safe: use it from one event loop.

    Args:
        threads: how many ordinary pictures are decoded at once; and half as many dear ones beside them.
        most: what a picture may take; and the bytes that all dear ones together may hold.
    """

    def __init__(self, threads: int, most: Price = UNBOUNDED) -> None:
        self.width = threads
        self.most = most
        narrow = max(1, threads // 2)
        # Threads are started as they are needed.
        self.threads = ThreadPoolExecutor((1 + _OUTRUN) * (threads + narrow), thread_name_prefix="decode")
        self._ordinary = Lane[Job](threads, UNBOUNDED.held, _OUTRUN * threads)
        self._narrow = Lane[Job](narrow, most.held, _OUTRUN * narrow)
        self._closed = False
        self._jobs: dict[Job, None] = {}
        """All that wait or are being decoded."""
        self._look: asyncio.TimerHandle | None = None
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
        job = Job(min(work.price.held, self.most.held), caller, lane, outrun_s(work), decode)
        self._jobs[job] = None
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._look is None:
            self._look = job.loop.call_later(_LOOK_EVERY_S, self._look_at_all)
        if lane.enter(job):
            self._begin([job])
        try:
            return await job.answer
        except asyncio.CancelledError:
            following = lane.give_up(job)
            if following is None:
                # Unless a thread has begun with it.
                job.unwanted = True
            else:
                self._over(job)
                self._begin(following)
            raise

    def _begin(self, jobs: Iterable[Job]) -> None:
        """Has pictures decoded whose turn has come."""
        due = deque(jobs)
        while due:
            job = due.popleft()
            try:
                self.start(job)
            except RuntimeError:  # closed in the meantime
                job.answer.cancel()
                due.extend(job.lane.leave(job))

    def start(self, job: Job) -> None:
        """Has a thread decode a picture, and those whose turn comes then. Something else may decode it instead, and
        call ``done``.

        Raises:
            RuntimeError: the threads have ended.
        """
        self.threads.submit(self._work, job)

    def _work(self, job: Job) -> None:
        """Decodes a picture and those whose turn comes then. In a thread."""
        while True:
            answer = None if self._closed or job.unwanted else job.decoded()
            following = job.lane.leave(job)
            # The event loop may be closed by now.
            with suppress(RuntimeError):
                job.loop.call_soon_threadsafe(self._answer, job, answer)
            if not following:
                return
            job, *others = following
            for other in others:
                with suppress(RuntimeError):
                    job.loop.call_soon_threadsafe(self._begin, [other])

    def done(self, job: Job, answer: Crop | Exception) -> None:
        """Answers a picture that was started elsewhere than in these threads. Call it on the event loop."""
        following = job.lane.leave(job)
        self._answer(job, answer)
        self._begin(following)

    def _answer(self, job: Job, answer: Crop | Exception | None) -> None:
        self._over(job)
        if job.answer.done():
            return
        if answer is None:
            job.answer.cancel()
        elif isinstance(answer, Exception):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)

    def _over(self, job: Job) -> None:
        """Forgets a picture: it is decoded, or was given up."""
        del self._jobs[job]
        if not self._jobs:
            self._rest = job.loop.call_later(_REST_S, self.give_back)

    def _look_at_all(self) -> None:
        """Lets others have the places of jobs that outran their prices."""
        self._look = None
        for job in self._jobs:
            now = job.loop.time()
            if job.began_at is not None and now - job.began_at >= job.outrun_s:
                self._begin(job.lane.step_aside(job))
            self._look = self._look or job.loop.call_later(_LOOK_EVERY_S, self._look_at_all)

    def give_back(self) -> None:
        """Gives freed memory back to the system, in a thread."""
        with suppress(RuntimeError):  # closed in the meantime
            self.threads.submit(give_memory_back)

    def close(self) -> None:
        """Ends the threads, once the pictures that they decode are done. Those that wait are not decoded any more."""
        if self._rest is not None:
            self._rest.cancel()
        self._closed = True
        self.threads.shutdown(wait=False)


class Job(Place):
    """One picture, from when it comes until it is decoded.

    Args:
        held: bytes that decoding it takes.
        caller: who sent it.
        lane: that it is in.
        outrun_s: after how many seconds it has outrun its price.
        decode: decodes it; blocking.
    """

    def __init__(self, held: int, caller: str, lane: Lane[Job], outrun_s: float, decode: Callable[[], Crop]) -> None:
        super().__init__(held, caller)
        self.lane, self.outrun_s, self._decode = lane, outrun_s, decode
        self.began_at: float | None = None
        self.unwanted = False
        """Whether nobody waits for it any more."""
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Crop] = self.loop.create_future()

    def decoded(self) -> Crop | Exception:
        """Decodes it."""
        self.began_at = self.loop.time()
        try:
            return self._decode()
        except Exception as error:
            return error
