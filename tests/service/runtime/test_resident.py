"""One checkpoint in the ledger: what its place is worth, and how requests that wait for its load are answered."""

from __future__ import annotations

import asyncio

import pytest

from service.runtime.resident import Needs, Resident


async def nothing() -> None:
    pass


def resident(worth: float = 1.0, held: int = 100) -> Resident:
    entry = Resident("a", nothing, nothing, lambda: Needs(held, 0), worth=worth)
    entry.held = held
    return entry


def test_a_use_counts_half_after_a_minute() -> None:
    entry = resident()
    entry.use(1000.0)
    fresh, older, oldest = (entry.value(1000.0 + 60 * minutes) for minutes in (0, 1, 3))
    assert older / fresh == pytest.approx(1 / 2, rel=0.01)
    assert oldest / fresh == pytest.approx(1 / 8, rel=0.01)
    assert entry.value(1e9) > 0


def test_uses_add_up_as_they_fade() -> None:
    entry, single = resident(), resident()
    entry.use(0.0)
    entry.use(60.0)
    single.use(60.0)
    assert entry.value(60.0) / single.value(60.0) == pytest.approx(1.5, rel=0.01)


def test_the_value_grows_with_accuracy_and_falls_with_bytes() -> None:
    plain, accurate, large = resident(0.5), resident(1.0), resident(0.5, held=400)
    for entry in (plain, accurate, large):
        entry.use(0.0)
    assert accurate.value(0.0) == pytest.approx(2 * plain.value(0.0))
    assert large.value(0.0) == pytest.approx(plain.value(0.0) / 4)


def test_among_checkpoints_that_nobody_uses_the_large_and_inaccurate_are_worth_less() -> None:
    assert 0 < resident(held=200).value(0.0) < resident(held=100).value(0.0)
    assert 0 < resident(worth=0.5).value(0.0) < resident(worth=1.0).value(0.0)
    assert resident(held=0).value(0.0) > 0


@pytest.mark.parametrize(("needs", "most"), [(Needs(3, 5), 5), (Needs(5, 3), 5)])
def test_the_most_is_the_larger_of_footprint_and_load_peak(needs: Needs, most: int) -> None:
    assert needs.most == most


def test_it_leaves_for_a_load_or_because_somebody_asked() -> None:
    entry = resident()
    assert not entry.leaving
    entry.evicting = True
    assert entry.leaving
    entry.evicting = False
    entry.unloading.add(object())
    assert entry.leaving


async def test_waiting_requests_are_let_in_and_count_as_users_unless_they_have_gone() -> None:
    entry = resident()
    stays, gone = (asyncio.get_running_loop().create_future() for _ in range(2))
    entry.waiters += [stays, gone]
    gone.cancel()
    entry.let_in()
    assert (stays.done(), entry.users, entry.waiters) == (True, 1, [])


async def test_waiting_requests_are_refused_with_the_error() -> None:
    entry = resident()
    stays, gone = (asyncio.get_running_loop().create_future() for _ in range(2))
    entry.waiters += [stays, gone]
    gone.cancel()
    entry.refuse(OSError("broken"))
    with pytest.raises(OSError, match="broken"):
        await stays
    assert (entry.users, entry.waiters) == (0, [])
