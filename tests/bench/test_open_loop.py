"""What an open loop counts."""

from __future__ import annotations

import pytest
from open_loop import Outcome, told_and_took


def refused(at: float, told_s: int, took_ms: float = 0.0) -> Outcome:
    return Outcome(at - took_ms / 1000, "latency_ms=100", 100.0, 429, took_ms, retry_after_s=told_s)


def answered(at: float) -> Outcome:
    return Outcome(at, "latency_ms=100", 100.0, 200, 50.0)


def test_a_wave_lasts_until_nobody_has_been_refused_for_two_seconds() -> None:
    """Of the first wave, which ends at 3, the first waits 3 s and the last 0; the second wave is one refusal."""
    outcomes = [refused(9, 2), refused(0, 5), refused(1.5, 4), answered(1.6), refused(3, 8), answered(4)]
    # Told 2, 4, 5, 8; it took 0, 0, 1.5, 3.
    assert told_and_took(outcomes) == (4.5, 0.75)


def test_refusals_count_from_when_they_were_answered() -> None:
    """Sent at 0 and 0.5, both are refused at 1, and another one at 2.5."""
    outcomes = [refused(1, 1, took_ms=1000), refused(1, 1, took_ms=500), refused(2.5, 1)]
    assert told_and_took(outcomes) == (1, pytest.approx(1.5))


def test_where_nobody_is_refused_nobody_waits() -> None:
    assert told_and_took([answered(1)]) == (0, 0)
    assert told_and_took([]) == (0, 0)
