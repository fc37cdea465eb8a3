"""How Python runs in a process that serves."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from service.assembly.interpreter import tune


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval_s)
    gc.set_threshold(*thresholds)


def test_threads_pass_on_the_interpreters_lock_sooner_than_by_default() -> None:
    sys.setswitchinterval(0.005)  # Python's own
    tune()
    assert 0 < sys.getswitchinterval() <= 0.005 / 5


def test_the_garbage_collector_looks_less_often_and_at_old_objects_as_before() -> None:
    gc.set_threshold(700, 10, 11)  # Python's own are 700, 10 and 10
    tune()
    youngest, *older = gc.get_threshold()
    assert youngest >= 10 * 700
    assert older == [10, 11]
