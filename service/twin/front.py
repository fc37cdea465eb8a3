"""A simulated front: it hands pictures to a device owner, and decodes them on its own cores when they are wanted.

What a decode takes is its price (``models.images.cost``), as the real decoders know it before they begin, times a
factor that is drawn so that its spread is the one in the profile. The lanes of ``inference.decoders`` decide who goes
first; as many decodes as there are cores run at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import numpy as np

from models.images.cost import RATES, Rate, Work, price, work_of
from models.images.outline import Outline
from models.images.preprocess import Preprocess
from service.domain.picture import Decoded
from service.inference.decoders import Decoders, Job
from service.inference.decoding import Crop
from service.twin.loop import VirtualLoop, VirtualThreads

#: A crop that is never looked at. Queues bound the bytes of real ones, which are reached long after their places.
_CROP: Crop = np.zeros((1, 1, 1), np.uint8)


class VirtualDecoders(Decoders):
    """Decoders whose threads are virtual.

    Args:
        loop: whose time passes.
        cores: how many decodes run at once, dear ones among them.
    """

    def __init__(self, loop: VirtualLoop, cores: int) -> None:
        super().__init__(cores)
        self._virtual = VirtualThreads(loop, cores)

    def start(self, job: Job) -> None:
        self._virtual.submit(job.decoded).add_done_callback(lambda future: self.done(job, future.result()))

    def give_back(self) -> None:
        """Does nothing: no memory was taken."""


class SimulatedFront:
    """Decodes pictures on a number of cores.

    Args:
        loop: whose time passes.
        cores: how many decodes run at once.
        source: of random numbers.
        rates: what decoding takes on the simulated machine.
        deviation: the standard deviation of the logarithm of a decode's seconds over its price.
        pace: what a decode takes, as a multiple of its price.
        slower: how many times its price a decode takes now.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        cores: int,
        source: random.Random,
        rates: Mapping[str, Rate] = RATES,
        deviation: float = 0.0,
        pace: float = 1.0,
        slower: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._pace = pace
        self._loop = loop
        self._source = source
        self._rates = rates
        self._deviation = deviation
        self._slower = slower
        self.decoders = VirtualDecoders(loop, cores)
        self._prices: dict[tuple[Outline, Preprocess], tuple[Work, float]] = {}
        self.asked: dict[object, int] = {}
        """How many pictures of this front each owner has not answered."""

    async def decode(self, outline: Outline, preprocess: Preprocess, caller: str) -> Crop:
        """Decodes a picture for a network."""
        known = self._prices.get((outline, preprocess))
        if known is None:
            known = work_of(outline, preprocess), price(outline, preprocess, self._rates).seconds
            self._prices[outline, preprocess] = known
        work, seconds = known[0], self._pace * self._slower() * known[1]
        if self._deviation:
            seconds *= math.exp(self._source.gauss(-self._deviation * self._deviation / 2, self._deviation))
        return await self.decoders.run(lambda: self._spend(seconds), work, caller)

    def _spend(self, seconds: float) -> Crop:
        self._loop.spend(seconds, 1)
        return _CROP


class SimulatedPicture:
    """A picture that a front has: a ``domain.picture.Picture``.

    Args:
        front: has its file.
        outline: of the file.
        caller: who sent it.
    """

    __slots__ = ("_caller", "_front", "_outline")

    def __init__(self, front: SimulatedFront, outline: Outline, caller: str) -> None:
        self._front = front
        self._outline = outline
        self._caller = caller

    @property
    def outline(self) -> Outline | None:
        return self._outline

    def __len__(self) -> int:
        return self._outline.size

    def here(self, preprocess: Preprocess) -> Decoded | None:
        """None: it is decoded once it is wanted."""
        return None

    async def file(self) -> bytes | None:
        """None: there is no file."""
        return None

    async def decoded(self, preprocess: Preprocess, max_pixels: int) -> Decoded:
        loop = self._front._loop
        began = loop.time()
        crop = await self._front.decode(self._outline, preprocess, self._caller)
        return Decoded(crop, loop.time() - began)
