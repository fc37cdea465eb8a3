"""An open loop: requests are sent when they are due, whether or not those before them have been answered."""

from __future__ import annotations

import asyncio
import math
import random
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from statistics import median

import aiohttp

#: Budgets as callers might have them: interactive, batch-like, frugal, demanding; named networks among them.
MIX = (
    "latency_ms=150",
    "latency_ms=250&memory_mb=250",
    "latency_ms=400",
    "latency_ms=600&min_top1=65",
    "latency_ms=1000",
    "latency_ms=1500&memory_mb=600",
    "model=googlenet&latency_ms=300",
    "model=alexnet&latency_ms=200",
)

#: A wave of refusals is over when nobody has been refused for so long.
CALM_S = 2.0


@dataclass(slots=True)
class Outcome:
    """What became of one request."""

    due: float
    """Seconds after the beginning."""
    query: str
    budget_ms: float
    status: int
    took_ms: float
    """By the client's clock, from when it was due: what the client's own lag adds is the caller's wait too."""
    model: str = ""
    predicted_ms: float | None = None
    actual_ms: float | None = None
    """By the server's clock."""
    timings_ms: dict[str, float] | None = None
    """By the server's clock: decode, queue, forward, total."""
    batch_size: int = 0
    retry_after_s: int | None = None
    again: bool = False
    """It was sent before, refused, and is sent once more."""

    @property
    def good(self) -> bool:
        return self.status == 200 and self.took_ms <= self.budget_ms


def arrivals(rate: float, seconds: float, seed: int, start: float = 0.0) -> list[tuple[float, str]]:
    """When which query is due: as many as the rate says, at moments that know nothing of each other, as a Poisson
    process has them, and each query as often as the others."""
    source = random.Random(seed)  # noqa: S311 - not for secrets
    number = round(rate * seconds)
    queries = [MIX[i % len(MIX)] for i in range(number)]
    source.shuffle(queries)
    return list(zip(sorted(start + source.uniform(0, seconds) for _ in range(number)), queries, strict=True))


async def send(
    url: str, picture: bytes, due_queries: Iterable[tuple[float, str]], *, resend: bool, address: str | None = None
) -> list[Outcome]:
    """Sends everything when it is due; with ``resend``, the refused once more after their Retry-After.

    Args:
        url: of the service.
        picture: that all send.
        due_queries: seconds after the beginning, and the query of each.
        resend: whether the refused come back.
        address: of this machine, from which all are sent: by it the service tells callers apart.
    """
    outcomes: list[Outcome] = []
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=400)
    connector = aiohttp.TCPConnector(limit=0, local_addr=None if address is None else (address, 0))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def one(due: float, query: str, again: bool) -> None:
            await asyncio.sleep(began + due - time.monotonic())
            outcome = await _post(session, f"{url}/classify?{query}", picture, began + due)
            outcome.due, outcome.again = due, again
            outcomes.append(outcome)
            if resend and outcome.status == 429 and not again:
                await one(time.monotonic() - began + (outcome.retry_after_s or 1), query, True)

        await asyncio.gather(*(one(due, query, False) for due, query in due_queries))
    return outcomes


async def _post(session: aiohttp.ClientSession, url: str, picture: bytes, due: float) -> Outcome:
    query = url.partition("?")[2]
    budget_ms = float(query.partition("latency_ms=")[2].partition("&")[0])
    outcome = Outcome(0.0, query, budget_ms, 0, math.inf)
    try:
        async with session.post(url, data=picture) as response:
            body = await response.json(content_type=None)
            outcome.status = response.status
            retry_after = response.headers.get("Retry-After")
    except (TimeoutError, aiohttp.ClientError, ValueError):
        return outcome
    outcome.took_ms = (time.monotonic() - due) * 1000
    outcome.retry_after_s = int(retry_after) if retry_after else None
    if outcome.status == 200:
        outcome.model = body["model"]
        outcome.predicted_ms, outcome.actual_ms = body["routing"]["predicted_ms"], body["timings_ms"]["total"]
        outcome.timings_ms, outcome.batch_size = body["timings_ms"], body["batch_size"]
    return outcome


def goodput(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Answers within their budgets, a second."""
    return sum(outcome.good for outcome in outcomes) / seconds


def told_and_took(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """What the refused were told, and what it really took: the median Retry-After, and the median time from a refusal
    until nobody was refused for two seconds. 0 where nobody was refused."""
    refused = sorted((o.due + o.took_ms / 1000, o.retry_after_s) for o in outcomes if o.retry_after_s is not None)
    if not refused:
        return 0.0, 0.0
    times = [at for at, _ in refused]
    ends = [at for at, following in pairwise(times) if following - at > CALM_S] + times[-1:]
    took = [ends[bisect_left(ends, at)] - at for at in times]
    return median(told for _, told in refused), median(took)


def queue_s(outcomes: Sequence[Outcome], peak: float) -> float:
    """What a queue of the refused would have taken, had they waited: the median time from a refusal until its turn. The
    service answers ``peak`` pictures a second: whoever it let in at the first time goes first, then the refused, in the
    order of their refusals. 0 where nobody was refused."""
    first = [o for o in outcomes if not o.again]
    refused = sorted(o.due + o.took_ms / 1000 for o in first if o.status == 429)
    let_in = sorted(o.due for o in first if o.status in (200, 504))
    waited: list[float] = []
    answered = 0
    for turn in count(1):
        if len(waited) == len(refused):
            break
        at = turn / peak
        if answered < len(let_in) and let_in[answered] <= at:
            answered += 1
        elif refused[len(waited)] <= at:
            waited.append(at - refused[len(waited)])
    return median(waited) if waited else 0.0


def prediction_error(outcomes: Sequence[Outcome]) -> float:
    """Median of |predicted - actual| / actual."""
    return median(
        abs(o.predicted_ms - o.actual_ms) / o.actual_ms for o in outcomes if o.predicted_ms is not None and o.actual_ms
    )
