"""When requests are due in an open loop: arrival processes, and the rate profiles that they follow.

An arrival process of rate 1 is stretched along the profile: the n-th request is due when the integral of the profile's
rate reaches the time of the process's n-th arrival (time rescaling). The same seed gives the same times.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

Shape = Literal["constant", "step", "spike", "ramp"]
SHAPES: tuple[Shape, ...] = ("constant", "step", "spike", "ramp")

#: The number of gaps whose mean and variation are corrected together; see :func:`_block`.
_BLOCK = 1000
_CORRECTIONS = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a profile in which the rate changes linearly from one value to another."""

    seconds: float
    rate: float
    rate_to: float

    @property
    def expected(self) -> float:
        """The expected number of requests in this piece."""
        return self.seconds * (self.rate + self.rate_to) / 2


@dataclass(frozen=True, slots=True)
class RateProfile:
    """The rate in requests a second over time; the last piece is endless and has a constant rate."""

    pieces: tuple[Piece, ...]

    def due(self, expected: float) -> float:
        """The second at which the expected number of requests so far reaches a value."""
        begin = 0.0
        for piece in self.pieces[:-1]:
            if expected < piece.expected:
                slope = (piece.rate_to - piece.rate) / piece.seconds
                # The root of rate * x + slope * x^2 / 2 = expected, in a form that does not divide by the slope.
                return begin + 2 * expected / (piece.rate + math.sqrt(piece.rate**2 + 2 * slope * expected))
            begin += piece.seconds
            expected -= piece.expected
        return begin + expected / self.pieces[-1].rate


def rate_profile(shape: Shape, rate: float, rate_to: float, from_s: float, for_s: float) -> RateProfile:
    """The rate profile of a shape.

    Args:
        shape: ``constant``; ``step`` to another rate; ``spike`` to another rate and back; ``ramp`` linearly to it.
        rate: requests a second at the beginning.
        rate_to: requests a second after the step, in the spike or after the ramp.
        from_s: seconds from the beginning until the rate changes or begins to.
        for_s: seconds that the spike or the ramp lasts.
    """
    before, after = Piece(from_s, rate, rate), Piece(math.inf, rate_to, rate_to)
    match shape:
        case "constant":
            return RateProfile((Piece(math.inf, rate, rate),))
        case "step":
            return RateProfile((before, after))
        case "spike":
            return RateProfile((before, Piece(for_s, rate_to, rate_to), Piece(math.inf, rate, rate)))
        case "ramp":
            return RateProfile((before, Piece(for_s, rate, rate_to), after))


def arrivals(profile: RateProfile, cv: float, seed: int) -> Iterator[float]:
    """The seconds at which requests are due, ascending and endless.

    Args:
        cv: the coefficient of variation of the gaps between arrivals at a constant rate. 1 is a Poisson process; other
            values give gamma-distributed gaps: bursts above 1, more even arrivals below 1.
    """
    return map(profile.due, accumulate(_gaps(cv, random.Random(seed))))  # noqa: S311 - no secret


def switching_arrivals(rate: float, times: float, calm_s: float, busy_s: float, seed: int) -> Iterator[float]:
    """Arrivals of a Markov-modulated Poisson process of two states, calm and busy, each of which lasts for an
    exponentially distributed time (Fischer and Meier-Hellstern, 1993). Ascending and endless; it begins in either
    state, as often as the process is in it.

    Args:
        rate: requests a second on average.
        times: the busy state's rate over the calm one's.
        calm_s: mean seconds of the calm state.
        busy_s: mean seconds of the busy state.
        seed: the same seed gives the same times.
    """
    source = random.Random(seed)  # noqa: S311 - no secret
    calm_rate = rate * (calm_s + busy_s) / (calm_s + times * busy_s)
    busy = source.random() * (calm_s + busy_s) < busy_s
    begins = 0.0
    while True:
        ends = begins + source.expovariate(1 / (busy_s if busy else calm_s))
        at = begins
        # Exponential gaps have no memory, so each state may begin with a new one.
        while (at := at + source.expovariate(calm_rate * times if busy else calm_rate)) < ends:
            yield at
        begins, busy = ends, not busy


def _gaps(cv: float, source: random.Random) -> Iterator[float]:
    while True:
        yield from _block(cv, source)


def _block(cv: float, source: random.Random) -> list[float]:
    """A block of gaps with the mean 1 and, to a thousandth, the given coefficient of variation.

    The rate of a thousand exponential gaps is typically off by 3 %, but a measurement is quoted by its rate. Raising
    the gaps to a power near 1 corrects their coefficient of variation, and a factor corrects their mean. Within a
    block, arrivals bunch as those of the process do.
    """
    shape = cv**-2
    gaps = [source.gammavariate(shape, 1.0) for _ in range(_BLOCK)]
    if cv == 1:
        gaps = [source.expovariate(1.0) for _ in range(_BLOCK)]
    power = 1.0
    bent = gaps
    for _ in range(_CORRECTIONS):
        has = _cv(bent)
        if abs(has / cv - 1) < 1e-3:
            break
        power *= cv / has
        bent = [gap**power for gap in gaps]
    mean = math.fsum(bent) / _BLOCK
    return [gap / mean for gap in bent]


def _cv(gaps: Sequence[float]) -> float:
    mean = math.fsum(gaps) / len(gaps)
    return math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request of a trace; without a user, its kind is drawn by the shares."""

    seconds: float
    user: str | None


def read_trace(path: Path, users: Sequence[str]) -> list[Recorded]:
    """Reads a trace: a CSV file with the columns ``seconds`` (after the beginning, ascending) and ``user``.

    Args:
        users: the values that the column ``user`` may have; the column is optional, and so are its values.

    Raises:
        ValueError: the file cannot be read or is not a trace; the text says where.
    """
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            if "seconds" not in (rows.fieldnames or ()):
                raise ValueError(f"{path}: its first line must name a column seconds")
            trace = [_recorded(row, f"{path}:{rows.line_num}", users) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not trace:
        raise ValueError(f"{path}: there are no requests in it")
    for number, (earlier, later) in enumerate(pairwise(trace), start=2):
        if later.seconds < earlier.seconds:
            raise ValueError(f"{path}: request {number} is before the one above it; seconds must ascend")
    return trace


def _recorded(row: dict[str, str], where: str, users: Sequence[str]) -> Recorded:
    try:
        seconds = float(row["seconds"])
    except (TypeError, ValueError):
        raise ValueError(f"{where}: seconds is not a number: {row['seconds']!r}") from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{where}: seconds must be a number of at least 0, not {row['seconds']!r}")
    user = row.get("user") or None
    if user is not None and user not in users:
        raise ValueError(f"{where}: user is {user!r}; there are {', '.join(users)}")
    return Recorded(seconds, user)
