"""One run: the requests that it sends, the window in which they are measured, and the results."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from loadtest._catalogue import Choice, find_choice
from loadtest._measured import Measured
from loadtest._options import Options, users_of
from loadtest._outcomes import Outcome
from loadtest._pictures import pictures
from loadtest._requests import KINDS, Kind, Request, requests_of
from traffic.arrivals import Recorded, arrivals, read_trace

_FORMAT = 1


@dataclass(slots=True)
class Run:
    """A load test, from its first request to the results file."""

    options: Options
    host: str
    choice: Choice
    shares: dict[Kind, int]
    requests: dict[Kind, Iterator[Request]]
    trace: list[Recorded]
    measured: Measured = field(default_factory=Measured)
    in_flight: int = 0
    began: float = math.inf
    """When the first request may be sent, by ``perf_counter`` as the other times."""
    window_from: float = math.inf
    """Requests that are due earlier belong to the warm-up and are not measured."""
    window_to: float = math.inf
    """No request is sent later."""

    def begin(self) -> None:
        """Starts the run and its warm-up."""
        self.began = perf_counter()
        self.window_from = self.began + self.options.warm_up

    def end(self, at: float) -> None:
        """Sets the time after which no request is sent, unless an earlier one is set."""
        self.window_to = min(self.window_to, at)

    @property
    def ended_sending(self) -> bool:
        return self.window_to < math.inf

    @property
    def window_s(self) -> float:
        return max(0.0, self.window_to - self.window_from) if self.ended_sending else 0.0

    def sent(self, request: Request, due: float, lag_s: float | None) -> None:
        """Counts a request that is being sent, ``lag_s`` seconds late in an open loop."""
        self.in_flight += 1
        if due >= self.window_from:
            self.measured.sent(request, None if lag_s is None else lag_s * 1000)

    def ended(self, request: Request, due: float, outcome: Outcome, latency_ms: float) -> None:
        """Counts what became of a request."""
        self.in_flight -= 1
        if due >= self.window_from:
            self.measured.ended(request, outcome, latency_ms)

    def unsent(self, due: float) -> None:
        """Counts a request that was due but that no user was free to send before the end."""
        if due >= self.window_from:
            self.measured.unsent += 1

    def results(self, asked: dict[str, Any], generator: dict[str, Any], *, partial: bool) -> dict[str, Any]:
        """The content of the results file.

        Args:
            asked: what was asked for with Locust's own options.
            generator: what the run took of the generator's machine.
        """
        options = self.options
        return {
            "format": _FORMAT,
            "host": self.host,
            "partial": partial,
            "asked": {
                **asked,
                "warm_up_s": options.warm_up,
                "model": self.choice.model,
                "arrivals": options.arrivals,
                "rate": options.rate,
                "rate_profile": options.rate_profile,
                "cv": options.cv,
                "seed": options.seed,
                "shares": self.shares,
            },
            "window_s": round(self.window_s, 3),
            **self.measured.results(self.window_s),
            "generator": generator,
        }


def prepare(options: Options, host: str | None, user_names: list[str]) -> Run:
    """Asks the service which models it can serve, and builds the requests.

    Raises:
        ValueError: there is no service, model, picture or trace to test with; the text says what to do.
    """
    if not host:
        raise ValueError("no host to test: --host http://localhost:8000")
    shares = users_of(options.shares, user_names)
    trace = [] if options.trace is None else read_trace(options.trace, KINDS)
    choice = find_choice(host, options.model, options.labels)
    images = pictures(options.pictures or choice.pictures, options.seed)
    requests = {kind: requests_of(kind, images, choice.model, choice.labels, options.seed) for kind in KINDS}
    return Run(options, host, choice, shares, requests, trace)


def due_requests(run: Run) -> Iterator[tuple[float, Request]]:
    """The requests of an open loop with the seconds after the beginning at which they are due."""
    options, kinds, weights = run.options, list(run.shares), list(run.shares.values())
    source = random.Random(options.seed)  # noqa: S311 - not for secrets
    if options.arrivals == "trace":
        for recorded in run.trace:
            kind = next((k for k in KINDS if k == recorded.user), None) or source.choices(kinds, weights)[0]
            yield recorded.seconds, next(run.requests[kind])
        return
    for seconds in arrivals(options.profile, options.cv or 1.0, options.seed):
        yield seconds, next(run.requests[source.choices(kinds, weights)[0]])


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes the results file under a temporary name and renames it, so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(results, indent=2) + "\n")
    temporary.replace(path)
