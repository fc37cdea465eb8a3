"""Who is heard of, and for how long. With Ray itself: ``observability/test_observed.py``."""

from __future__ import annotations

import pytest

from service.cluster.metrics_targets import COMPLETE_AFTER_S, TargetBook
from service.domain.errors import NotReadyError
from service.telemetry.exposition import Target


def test_who_falls_silent_is_forgotten_after_ten_seconds() -> None:
    now = [100.0]
    book = TargetBook(lambda: now[0], lambda: False)
    one, other = Target("127.0.0.1:1", {"replica": "a"}), Target("127.0.0.1:2", {"replica": "b"})
    book.beat(one)
    book.beat(other)
    now[0] += 9
    book.beat(one)
    assert book.living() == [one, other]
    now[0] += 2
    assert book.living() == [one]
    now[0] += 9
    assert book.living() == []
    book.beat(other)
    assert book.living() == [other]


def test_whoever_takes_a_port_over_is_who_is_there() -> None:
    book = TargetBook(began_anew=lambda: False)
    book.beat(Target("127.0.0.1:1", {"replica": "old"}))
    book.beat(Target("127.0.0.1:1", {"replica": "new"}))
    assert [target.labels["replica"] for target in book.living()] == ["new"]


def test_one_that_takes_the_place_of_another_says_nothing_until_it_has_heard_everybody() -> None:
    """An empty list would make Prometheus forget all of them."""
    now = [100.0]
    book = TargetBook(lambda: now[0], lambda: True)
    target = Target("127.0.0.1:1", {"replica": "a"})
    book.beat(target)
    with pytest.raises(NotReadyError):
        book.living()
    now[0] += COMPLETE_AFTER_S
    assert book.living() == [target]
