"""What one decision takes: the router over all checkpoints, with fake engines. ``decision.py``.

``choose`` alone with empty queues and with a queue at each checkpoint, then with the survey that asks every predictor
how it stands. Prints one line of JSON: median microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from models.checkpoints.catalogue import Catalogue
from service.domain.decision import Budget
from service.domain.prediction import Limits
from service.domain.snapshot import Candidate, DeviceLoad
from service.engines.fake import FakeEngine
from service.routing.choose import choose
from service.runtime.placement import LocalPlacement

#: Fewer at a time would measure the clock.
_TOGETHER = 20
_ENCODED_BYTES = 100_000


def median_us(decide: Callable[[], object], seconds: float) -> float:
    """Of as many calls as there is time for."""
    times, ended = list[float](), (started := time.perf_counter())
    while ended < started + seconds:
        before = time.perf_counter()
        for _ in range(_TOGETHER):
            decide()
        ended = time.perf_counter()
        times.append((ended - before) / _TOGETHER)
    return round(1e6 * statistics.median(times), 1)


async def main(seconds: float) -> dict[str, float]:
    # All have weights then, if random ones; nothing is looked for on the disk.
    checkpoints = Catalogue(Path("/nonexistent"), untrained=True).checkpoints()
    placement, budget = LocalPlacement(FakeEngine, Limits()), Budget(3600.0, 1e12, 50.0)
    await placement.warm_up(checkpoints)
    snapshots, idle = placement.survey(checkpoints, _ENCODED_BYTES)
    candidates = [Candidate(checkpoint, snapshot) for checkpoint, snapshot in snapshots]
    queued = [snapshot._replace(queued=20) for _, snapshot in snapshots if snapshot is not None]
    busy = [Candidate(checkpoint, snapshot) for (checkpoint, _), snapshot in zip(snapshots, queued, strict=True)]
    load = DeviceLoad({"": 0.01}, queued)

    def surveyed() -> object:
        found, now = placement.survey(checkpoints, _ENCODED_BYTES)
        return choose([Candidate(checkpoint, snapshot) for checkpoint, snapshot in found], budget, now)

    figures = {
        "checkpoints": len(checkpoints),
        "choose_us": median_us(lambda: choose(candidates, budget, idle), seconds),
        "choose_all_queued_us": median_us(lambda: choose(busy, budget, load), seconds),
        "survey_and_choose_us": median_us(surveyed, seconds),
    }
    await placement.close()
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    print(json.dumps(asyncio.run(main(parser.parse_args().seconds))))
