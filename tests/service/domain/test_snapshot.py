"""Snapshots: what follows from the times and the queue of a checkpoint."""

from __future__ import annotations

import pytest

from service.domain.snapshot import Snapshot

#: A forward pass takes 0.3, 0.4 and 0.8 s at the 95th percentile, and half of that on average.
OWN = Snapshot((0.0, 0.3, 0.4, 0.8), 0.1, 10**6, spread=2.0, profiled_decode_s=0.0625, profiled_forward_s=0.25)


def test_queues_take_mean_times_in_the_largest_batches() -> None:
    assert OWN.mean_s(3) == 0.4
    assert OWN.per_picture_s == pytest.approx(0.4 / 3)
    assert [OWN.batches_s(n) for n in (0, 1, 3, 4, 8)] == pytest.approx([0, 0.15, 0.4, 0.55, 1.0])


@pytest.mark.parametrize(("ahead", "takes_s"), [(0, 0.15), (1, 0.05), (2, 0.2), (3, 0.15), (5, 0.2)])
def test_a_picture_delays_those_behind_it_by_what_it_adds_to_its_batch(ahead: int, takes_s: float) -> None:
    assert OWN._replace(ahead=ahead).takes_s == pytest.approx(takes_s)


def test_the_time_alone_is_the_profiles() -> None:
    assert OWN.alone_s == 0.3125
    assert OWN._replace(forward_s=(0.0, 9.0), decode_s=9.0, ahead=9, load_s=9.0).alone_s == 0.3125
