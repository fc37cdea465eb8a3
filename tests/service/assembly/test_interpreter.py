"""Python's own settings in a process that serves."""

from __future__ import annotations

import gc
import sys

import pytest

from service.assembly import interpreter


def test_threads_take_turns_more_often_and_cycles_are_looked_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    intervals_s: list[float] = []
    thresholds: list[tuple[int, ...]] = []
    monkeypatch.setattr(sys, "setswitchinterval", intervals_s.append)
    monkeypatch.setattr(gc, "set_threshold", lambda *numbers: thresholds.append(numbers))
    before = gc.get_threshold()
    interpreter.tune()
    # Python's own is 5 ms (sys.setswitchinterval).
    (interval_s,) = intervals_s
    assert 0 < interval_s <= 0.005 / 5
    ((young, *older),) = thresholds
    assert young >= 10 * before[0]
    assert tuple(older) == before[1:]
