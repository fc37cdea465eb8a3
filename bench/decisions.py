"""What one decision takes: ``python bench/decisions.py`` prints microseconds, as one line of JSON.

The real router over the real placement in this process, with all sixteen networks and the profiles of two cores that
ship with the product. Engines are fake, and the device is held, so that pictures wait in some of the queues.

- ``router_us``: the caller states a budget, and the router picks among sixteen. A front has read the picture's header.
- ``router_header_us``: the same where the router reads it.
- ``named_us``: the caller names a network without a budget; it is in memory, and few pictures wait.
- ``named_budget_us``: the caller names a network and states a budget.
- ``choose_us``: the pure function alone, over the snapshots of ``router_us``.

Medians of rounds that take turns, so that other work on the machine falls on all of them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, cast

from PIL import Image

from models.checkpoints.catalogue import LOOK_EVERY_S, Catalogue, Checkpoint
from models.images.outline import Outline, glance
from service.config.settings import Settings
from service.domain.decision import Budget
from service.domain.prediction import Limits
from service.domain.query import Query
from service.domain.snapshot import Candidate
from service.engines import TopK
from service.engines.fake import FakeEngine
from service.profiling.profiles import Profile, Profiles
from service.routing.choose import choose
from service.routing.router import Router
from service.runtime.placement import LocalPlacement

#: Decisions in a round; fewer would measure the clock.
_TOGETHER = 20
_LATENCY_MS = 60_000
#: How many pictures wait for each of these, of callers of their own.
QUEUES = {"alexnet": 1, "googlenet": 5, "inception_v2": 12, "vgg16": 3}


class _Shipped:
    """The profiles that ship with the product."""

    def __init__(self) -> None:
        self._profiles = Profiles(Path("/nonexistent"), "cpu-2-cores")

    def nearest(self, checkpoint: Checkpoint) -> Profile | None:
        return self._profiles.nearest(checkpoint)

    def ensure(self, checkpoint: Checkpoint, *, measure: bool = True) -> Profile | None:
        return self._profiles.nearest(checkpoint)


class _Seen:
    """A picture whose header was read. The router asks for no more."""

    __slots__ = ("outline",)

    def __init__(self, outline: Outline | None) -> None:
        self.outline = outline

    here = file = decoded = __len__ = cast(Any, None)


@dataclass
class _Scene:
    """A service whose device is held."""

    placement: LocalPlacement
    router: Router
    checkpoints: list[Checkpoint]
    pictures: list[bytes]
    """They take turns, so many that the price of each is forgotten before it comes again."""

    def decide(self, *, seen: bool = True, **query: Any) -> Callable[[], object]:
        """Decides on the picture; ``seen``: somebody has read its header."""
        asked, router = Query(**query), self.router
        pictures: Iterator[Any] = cycle([_Seen(glance(p)) if seen else p for p in self.pictures])

        def decided() -> object:
            now = time.monotonic()
            return router.decide(asked, router.candidates(asked), now, 100_000, "caller", picture=next(pictures))

        return decided


@asynccontextmanager
async def scene(queues: dict[str, int]) -> AsyncIterator[_Scene]:
    """A service with these queues, one picture more in the forward pass, until the end of the block."""
    began, release = threading.Event(), threading.Event()

    class Held(FakeEngine):
        def run(self, crops: Any, whole: bool = False) -> TopK:
            began.set()
            release.wait()
            return super().run(crops, whole)

    catalogue = Catalogue(Path("/nonexistent"), untrained=True, look_every_s=LOOK_EVERY_S)
    placement = LocalPlacement(Held, Limits(), profiles=_Shipped())
    router = Router(catalogue, placement, Settings(default_latency_ms=_LATENCY_MS))
    shown = _Scene(placement, router, catalogue.checkpoints(), [_photograph(480 + 8 * n) for n in range(40)])
    await placement.warm_up(shown.checkpoints)
    with ExitStack() as admitted:
        running = []
        if queues:
            running.append(asyncio.create_task(_ask(shown, "vgg19", "caller", admitted)))
            await asyncio.to_thread(began.wait)
        for name, pictures in queues.items():
            for number in range(pictures):
                running.append(asyncio.create_task(_ask(shown, name, f"caller {number % 3}", admitted)))
        # Until they are decoded.
        await asyncio.sleep(0.5)
        assert sum(placement.predictor(c).queued for c in shown.checkpoints) == sum(queues.values())
        try:
            yield shown
        finally:
            release.set()
            await asyncio.gather(*running)
            await placement.close()


def _photograph(width: int) -> bytes:
    encoded = io.BytesIO()
    Image.effect_noise((width, 480), 60).convert("RGB").save(encoded, "JPEG")
    return encoded.getvalue()


async def _ask(shown: _Scene, name: str, caller: str, admitted: ExitStack) -> None:
    """Has one picture decided on, admitted and predicted."""
    query, now, router = Query(model=name, latency_ms=_LATENCY_MS), time.monotonic(), shown.router
    decision = router.decide(query, router.candidates(query), now, 100_000, caller)
    admitted.enter_context(router.admit(decision, now + _LATENCY_MS / 1000, caller))
    checkpoint = decision.checkpoint
    assert isinstance(checkpoint, Checkpoint)
    await shown.placement.predictor(checkpoint).predict(shown.pictures[0], now + _LATENCY_MS / 1000, caller=caller)


def _chosen(shown: _Scene) -> Callable[[], object]:
    """The choice alone."""
    snapshots, load = shown.placement.survey(shown.checkpoints, 100_000, time.monotonic() + 60)
    candidates = [Candidate(checkpoint, snapshot, 1.1, True) for checkpoint, snapshot in snapshots]
    budget = Budget(_LATENCY_MS / 1000, 1e12, 50.0)
    return lambda: choose(candidates, budget, load)


def _medians(works: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median microseconds of each, in rounds that take turns for so long."""
    times: dict[str, list[float]] = {name: [] for name in works}
    ended = time.perf_counter() + seconds
    while time.perf_counter() < ended:
        for name, work in works.items():
            before = time.perf_counter()
            for _ in range(_TOGETHER):
                work()
            times[name].append((time.perf_counter() - before) / _TOGETHER)
    return {name: round(1e6 * statistics.median(found), 2) for name, found in times.items()}


async def main(seconds: float) -> dict[str, float]:
    """The figures, by name."""
    async with scene({}) as idle, scene(QUEUES) as busy:
        works = {
            "router_us": busy.decide(latency_ms=_LATENCY_MS, memory_mb=100_000, min_top1=50),
            "router_header_us": busy.decide(seen=False, latency_ms=_LATENCY_MS, memory_mb=100_000, min_top1=50),
            "named_us": idle.decide(model="googlenet"),
            "named_budget_us": busy.decide(model="googlenet", latency_ms=_LATENCY_MS),
            "choose_us": _chosen(busy),
        }
        return {"checkpoints": len(busy.checkpoints), **_medians(works, seconds)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="for all rounds together")
    print(json.dumps(asyncio.run(main(parser.parse_args().seconds))))
