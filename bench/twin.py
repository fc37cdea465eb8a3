"""The simulation beside the real service: ``python bench/twin.py [--profile FILE] [--seconds S]``.

Starts the service without Ray, with every network, finds the most that it answers in time a second while far more
arrives (the peak), and sends it pictures at 0.5, 0.8 and 1.3 of that, with the mix of ``open_loop.py``. ``topfive
simulate``'s own simulation then gets the very same arrivals. Prints p50 and p95 of the answers, attainment and each
network's share of the answers of both, and exits with 1 if one of them differs by more than 15 %.

Shares are compared as shares of all answers, in points; those of networks that give fewer than a tenth of the answers
too. The service is started anew for each load, since the router remembers the last one. The load generator runs on the
cores of the service, and adds what the simulation does not know of: ``by its own clock`` is what the service says that
answers took, without the client and the connection.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

from load import photograph
from open_loop import MIX, Outcome, arrivals, goodput, send
from running import Service, fleet_of

from models.checkpoints.catalogue import Catalogue
from models.images.cost import RATES, price
from models.images.outline import glance
from models.networks.variants import VARIANTS
from service.domain.quantile import quantile
from service.twin.document import table
from service.twin.durations import Durations
from service.twin.report import report
from service.twin.running import NOWHERE, Sent, device_profiles, simulate
from service.twin.running import Outcome as Simulated
from service.twin.scenario import Budget, Device, PictureKind, Scenario

LOADS = (0.5, 0.8, 1.3)
#: How far a figure of the simulation may be from the service's.
MOST_OFF = 0.15
#: Far more than two cores answer, and for how long it arrives.
_FAR, _FAR_S = 120.0, 12.0
_WARM_UP = (4.0, 5.0)
#: Networks with a smaller share of the answers have a line only with others.
_SEEN = 0.02


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of the pictures of one load."""

    pictures: int
    attainment: float
    """The share of all that was answered within its budget."""
    p50_ms: float
    p95_ms: float
    """Of the answers."""
    shares: dict[str, float]
    """Of each network, in the answers."""


def measured(outcomes: Sequence[Outcome], *, own_clock: bool = False) -> Figures:
    """The figures of the real service.

    Args:
        outcomes: of pictures that were sent once.
        own_clock: whether answers take what the service says, and not what the client has seen.
    """
    answered = [outcome for outcome in outcomes if outcome.status == 200]
    took_ms = [(o.actual_ms if own_clock else o.took_ms) or 0.0 for o in answered]
    good = [o for o, took in zip(answered, took_ms, strict=True) if took <= o.budget_ms]
    return _figures(len(outcomes), len(good), took_ms, [o.model for o in answered])


def simulated(outcome: Simulated) -> Figures:
    """The figures of a simulation without retries."""
    answered: list[Sent] = [sent for sent in outcome.sent if sent.reason == "ok"]
    attained = report(outcome).total.attained
    return _figures(len(outcome.sent), attained, [1000 * s.took_s for s in answered], [s.model for s in answered])


def _figures(pictures: int, attained: int, took_ms: Sequence[float], models: Sequence[str]) -> Figures:
    p50, p95 = (quantile(took_ms, q) if took_ms else 0.0 for q in (0.5, 0.95))
    shares = {name: count / len(models) for name, count in Counter(models).most_common()}
    return Figures(pictures, attained / pictures if pictures else 0.0, p50, p95, shares)


def off(real: Figures, twin: Figures) -> dict[str, float]:
    """How far the simulation is off: relative to the service in times and attainment, in shares as a difference."""
    found = {
        name: getattr(twin, name) / getattr(real, name) - 1 if getattr(real, name) else float("inf")
        for name in ("attainment", "p50_ms", "p95_ms")
    }
    names = sorted({*real.shares, *twin.shares})
    return found | {name: twin.shares.get(name, 0.0) - real.shares.get(name, 0.0) for name in names}


def within(real: Figures, twin: Figures) -> bool:
    """Whether nothing is off by more than ``MOST_OFF``."""
    return all(abs(by) <= MOST_OFF for by in off(real, twin).values())


def write_trace(due: Sequence[tuple[float, str]], path: Path) -> None:
    """The arrivals as a trace of the simulation; its users are the queries."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("seconds", "user"))
        rows.writerows(due)


def scenario(trace: Path, seconds: float, picture: bytes, profile: str, pace: Pace | None, cores: int) -> Scenario:
    """What is simulated: one service on this machine, and one caller who never comes back. Passes and decodes slow each
    other down. Without a pace, each takes what the router expects where it is alone."""
    kind, width, height, size, *_ = glance(picture)
    sent = PictureKind(kind=kind, width=width, height=height, bytes=size)
    return Scenario(
        arrivals="trace",
        trace=trace,
        seconds=seconds + 1,
        rate=1.0,
        retries="never",
        callers=1,
        cores=cores,
        shared=True,
        decode_pace=1.0 if pace is None else pace.decodes,
        device=(Device(profile=profile, pace={} if pace is None else pace.passes),),
        mix=tuple(Budget(query=query, picture=sent) for query in MIX),
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things took in a run, as multiples of what the router expects before it has learned anything."""

    passes: dict[str, float]
    """By network, to its profile."""
    decodes: float
    """To their price."""
    drift: float
    """Of all passes: the second half of the run to the first. Far from 1, something else has used the machine."""


def paces(outcomes: Sequence[Outcome], profile: str, picture: bytes) -> Pace:
    """By the clock of the service. Networks that did not answer have the pace of all others together.

    Raises:
        ValueError: nobody was answered in one half of the run.
    """
    answered = sorted((o for o in outcomes if o.timings_ms), key=attrgetter("due"))
    expected = Expected(profile, picture)
    halves = answered[: len(answered) // 2], answered[len(answered) // 2 :]
    if not all(halves):
        raise ValueError("nobody was answered")
    first, second, usual = (expected.pace(half) for half in (*halves, answered))
    passes = {}
    for name in expected.names:
        own = [outcome for outcome in answered if outcome.model == name]
        passes[name] = expected.pace(own) if own else usual
    return Pace(passes, expected.decode_pace(answered), second / first)


class Expected:
    """What the router expects of a device.

    Args:
        profile: of the device.
        picture: that everybody sends.
    """

    def __init__(self, profile: str, picture: bytes) -> None:
        profiles, outline = device_profiles(profile), glance(picture)
        self._passes: dict[str, Durations] = {}
        self._decode_ms: dict[str, float] = {}
        for checkpoint in Catalogue(NOWHERE, untrained=True).checkpoints():
            nearest = profiles.nearest(checkpoint)
            if nearest is not None:
                source = random.Random(1)  # noqa: S311 - not for secrets
                passes = Durations([*nearest.forward.items()], profiles.max_batch_size, source, spread=False)
                priced = price(outline, checkpoint.preprocess, nearest.decode_rates or RATES)
                self._passes[checkpoint.model] = passes
                self._decode_ms[checkpoint.model] = 1000 * priced.seconds

    @property
    def names(self) -> list[str]:
        return list(self._passes)

    def pace(self, answered: Iterable[Outcome]) -> float:
        """What passes took to what they were expected to. Each counts once, though all of its pictures tell."""
        took = expected = 0.0
        for o in answered:
            took += _timing(o, "forward") / o.batch_size
            expected += 1000 * self._passes[o.model].mean_s(o.batch_size) / o.batch_size
        return took / expected

    def decode_pace(self, answered: Sequence[Outcome]) -> float:
        """What decodes took to their prices when they met nothing else: the lowest tenth of them."""
        return quantile([_timing(o, "decode") / self._decode_ms[o.model] for o in answered], 0.1)


def _timing(outcome: Outcome, name: str) -> float:
    assert outcome.timings_ms is not None
    return outcome.timings_ms[name]


@contextmanager
def serving(fleet: Path, picture: bytes) -> Iterator[Service]:
    """A fresh service that has answered some pictures."""
    service = Service("--untrained", "--fleet", str(fleet))
    service.start(within_s=600)
    try:
        asyncio.run(send(service.url, picture, arrivals(*_WARM_UP, 0), resend=False))
        yield service
    finally:
        service.stop()


def rows(load: float, real: Figures, own: Figures, twin: Figures) -> list[tuple[str, ...]]:
    """The table's rows of one load."""
    by = off(real, twin)
    found = [
        (f"{load:g} x", "attainment", *(f"{f.attainment:.1%}" for f in (real, own, twin)), f"{by['attainment']:+.0%}")
    ]
    for name in ("p50_ms", "p95_ms"):
        label = f"{name.removesuffix('_ms')}, ms"
        found.append(("", label, *(f"{getattr(f, name):.0f}" for f in (real, own, twin)), f"{by[name]:+.0%}"))
    for name in sorted({*real.shares, *twin.shares}, key=lambda name: -real.shares.get(name, 0.0)):
        if max(real.shares.get(name, 0.0), twin.shares.get(name, 0.0)) >= _SEEN:
            shares = (f"{f.shares.get(name, 0.0):.1%}" for f in (real, own, twin))
            found.append(("", f"`{name}`", *shares, f"{100 * by[name]:+.1f} points"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="cpu-2-cores", help="a shipped profile, or a file of topfive profile")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--cores", type=int, default=2, help="of this machine")
    parser.add_argument("--as-profiled", action="store_true", help="simulate what the profile says, on shared cores")
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS))
    parser.add_argument("--peak", type=float, help="as it was found before, pictures a second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, and what became of each picture")
    options = parser.parse_args()
    kept, lines, raw = [], list[tuple[str, ...]](), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = photograph(folder).path.read_bytes()
        fleet = fleet_of(
            [name for name, variant in VARIANTS.items() if variant.labels == "imagenet1k"], folder, ray=False
        )
        peak = options.peak
        if peak is None:
            with serving(fleet, picture) as service:
                far = arrivals(_FAR, _FAR_S, 1)
                peak = goodput(asyncio.run(send(service.url, picture, far, resend=False)), _FAR_S)
        print(f"peak: {peak:.1f} pictures a second in time, of {_FAR:.0f} that arrive", flush=True)
        for load in options.loads:
            due = arrivals(load * peak, options.seconds, 2)
            with serving(fleet, picture) as service:
                outcomes = asyncio.run(send(service.url, picture, due, resend=False))
            write_trace(due, folder / "trace.csv")
            pace = paces(outcomes, options.profile, picture)
            asked = scenario(
                folder / "trace.csv",
                options.seconds,
                picture,
                options.profile,
                None if options.as_profiled else pace,
                options.cores,
            )
            real, own, twin = measured(outcomes), measured(outcomes, own_clock=True), simulated(simulate(asked))
            kept.append(within(real, twin))
            seen = ", ".join(f"{name} {pace.passes[name]:.2f}" for name in real.shares)
            print(
                f"{load:g} x: {'within' if kept[-1] else 'NOT within'} {MOST_OFF:.0%}; multiples of what was ", end=""
            )
            print(f"expected: decodes {pace.decodes:.2f}, passes of {seen}", flush=True)
            if abs(pace.drift - 1) > MOST_OFF:
                print(
                    f"  the machine changed: passes took {pace.drift:.2f} times as long in the second half", flush=True
                )
            lines += rows(load, real, own, twin)
            raw.append({"load": load, "due": due, "outcomes": [asdict(o) for o in outcomes]})
            if options.json:
                options.json.write_text(json.dumps({"peak": peak, "loads": raw}) + "\n")
    print(table(("load", "figure", "service", "by its own clock", "simulated", "off"), lines))
    raise SystemExit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
