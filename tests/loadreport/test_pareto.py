"""The Pareto front of accuracy, latency and memory."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from loadreport.pareto import mark_front
from loadreport.report import Network
from tests import reports

POINTS = st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=2, max_size=8)


def networks(points: list[tuple[int, int, int]]) -> list[Network]:
    return [
        reports.network(f"n{i}@untrained", top1=float(top1), alone_p50_ms=float(ms), footprint_mb=float(mb))
        for i, (top1, ms, mb) in enumerate(points)
    ]


@given(POINTS)
def test_a_network_is_on_the_front_unless_another_beats_it(points: list[tuple[int, int, int]]) -> None:
    marked = networks(points)
    mark_front(marked)
    beaten = {
        i
        for (i, a), (_, b) in product(enumerate(points), repeat=2)
        if b[0] >= a[0] and b[1] <= a[1] and b[2] <= a[2] and (b[0] > a[0] or b[1] < a[1] or b[2] < a[2])
    }
    assert [network.on_front for network in marked] == [i not in beaten for i in range(len(points))]


def test_only_what_is_comparable_is_compared() -> None:
    digits, alone = reports.network("lenet5@mnist"), networks([(1, 9, 9), (2, 1, 1)])
    unknown = reports.network("nin@untrained", top1=None)
    mark_front([digits, *alone, unknown])
    assert digits.on_front is None
    assert unknown.on_front is None
    assert [network.on_front for network in alone] == [False, True]
