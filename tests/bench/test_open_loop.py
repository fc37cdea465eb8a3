"""What an open loop counts."""

from __future__ import annotations

import pytest
from open_loop import Outcome, queue_s, told_and_took


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


def test_the_refused_would_have_waited_for_those_let_in_and_for_each_other() -> None:
    """At four a second turns are at 0.25, 0.5 and so on. Those let in take 0.25 and 0.5, the refused 0.75, 1 and 1.25;
    another one that is let in at 1.1 takes 1.25 before the last."""
    refused_at = [refused(0.1, 5), refused(0.2, 5), refused(0.3, 5)]
    assert queue_s([answered(0), answered(0.1), *refused_at], 4) == pytest.approx(1 - 0.2)
    last_waits = [answered(0), answered(0.1), answered(1.1), *refused_at[::-1]]
    assert queue_s(last_waits, 4) == pytest.approx(1 - 0.2)
    assert queue_s([answered(0), answered(0.1), answered(0.1), *refused_at], 4) == pytest.approx(1.25 - 0.2)
    again = refused(3, 5)
    again.again = True
    assert queue_s([again, answered(1)], 4) == 0
