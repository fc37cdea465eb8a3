"""What the metric calls of one request take, alone: CPU time on one thread. ``recording.py``.

The calls of a request for one picture that is named and answered in a batch of its own, which is the most that a
picture can cost. Prints one line of JSON: median microseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from models.checkpoints import Catalogue
from service.recording import OK, Edge, Outcome, PredictorSeries
from service.standing import Decision

#: Fewer at a time would measure the clock.
_TOGETHER = 500


def main(seconds: float) -> dict[str, float]:
    checkpoint = Catalogue(Path("/nonexistent"), untrained=True).find("lenet5")
    edge, predictor, decision = Edge(["lenet5"]), PredictorSeries(checkpoint), Decision(checkpoint)

    def request() -> None:
        edge.arrived()
        edge.routed(decision)
        predictor.batch(1, "drained", 0.0008, 0.0006)
        edge.kept("lenet5", 0.0001, late=False)
        edge.predicted("lenet5", 1.05)
        edge.answered("lenet5", 0.0011, 0.0001, 0.0008)
        outcome = Outcome("lenet5", OK)
        edge.left(outcome, [outcome], 0.0025)

    times, ends = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        before = time.thread_time()
        for _ in range(_TOGETHER):
            request()
        times.append((time.thread_time() - before) / _TOGETHER)
    return {"metric_calls_us": round(1e6 * statistics.median(times), 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3)
    print(json.dumps(main(parser.parse_args().seconds)))
