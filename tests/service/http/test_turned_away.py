"""Callers who ignore Retry-After are refused at once, beside others alone."""

from __future__ import annotations

import pytest

from service.domain.errors import DeadlineMissedError, Failure, OverloadedError, failure_of
from service.http import turned_away as module
from service.http.turned_away import TurnedAway
from tests.clock import Clock

REFUSED = failure_of(OverloadedError("its queue is full", retry_after_s=5.0))
BROKEN = Failure("undecodable", "no picture")


class Door:
    """Who may come in."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turned_away = TurnedAway(self.clock)

    def comes(self, caller: str) -> OverloadedError | None:
        try:
            self.turned_away.check(caller, self.clock.now)
        except OverloadedError as error:
            return error
        return None

    def refused(self, caller: str, times: int) -> None:
        for _ in range(times):
            assert self.comes(caller) is None
            self.turned_away.answered(caller, [REFUSED])


def test_after_sixteen_refusals_a_caller_is_refused_for_a_moment_and_told_the_time_that_is_left() -> None:
    door = Door()
    assert door.comes("polite") is None
    door.refused("rude", 15)
    assert door.comes("rude") is None
    door.turned_away.answered("rude", [REFUSED])
    door.clock.now += 0.2
    found = door.comes("rude")
    assert found is not None
    assert str(found) == "its queue is full"
    assert found.retry_after_s == pytest.approx(4.8)
    assert door.comes("polite") is None
    door.clock.now += 0.05
    assert door.comes("rude") is None
    # One more refusal is enough for the next moment.
    door.turned_away.answered("rude", [REFUSED])
    assert door.comes("rude") is not None


def test_a_lone_caller_is_decided_on_each_time() -> None:
    door = Door()
    door.refused("lone", 100)
    door.clock.now += 5
    door.refused("lone", 100)
    assert door.comes("other") is None
    assert door.comes("lone") is not None


@pytest.mark.parametrize("results", [[BROKEN], [REFUSED, BROKEN], []])
def test_any_other_outcome_makes_up_for_refusals_and_a_bulk_that_was_refused_in_part_is_neither(
    results: list[Failure],
) -> None:
    door = Door()
    door.comes("other")
    door.refused("rude", 15)
    door.turned_away.answered("rude", results)
    door.refused("rude", 1)
    assert (door.comes("rude") is None) == (REFUSED not in results)


def test_many_who_share_an_address_are_decided_on_while_one_in_five_is_answered() -> None:
    door = Door()
    door.comes("other")
    for _ in range(100):
        door.refused("office", 4)
        door.turned_away.answered("office", [BROKEN])
    # One in nine is too few: 8 refusals less 4, three times, and 4 more.
    for _ in range(3):
        door.refused("office", 8)
        door.turned_away.answered("office", [BROKEN])
    door.refused("office", 4)
    assert door.comes("office") is not None


def test_one_request_at_a_time_is_decided_on_until_there_is_room() -> None:
    door = Door()
    door.comes("other")
    for _ in range(200):
        door.turned_away.answered("rude", [REFUSED])
    decided = 0
    for _ in range(1010):
        door.clock.now += 0.001
        door.comes("other")
        decided += door.comes("rude") is None
    # Each quarter of a second one, whose answer has not come yet.
    assert decided == 4
    # Where there is room the next one is decided on at once, and all are after the second.
    door.turned_away.answered("rude", [BROKEN])
    assert [door.comes("rude") is None for _ in range(3)] == [True, False, False]
    door.turned_away.answered("rude", [BROKEN])
    assert [door.comes("rude") for _ in range(5)] == [None] * 5


def test_a_missed_deadline_is_no_sign_of_room() -> None:
    door = Door()
    door.comes("other")
    door.refused("rude", 16)
    for _ in range(10):
        door.turned_away.answered("rude", [failure_of(DeadlineMissedError("too late"))])
    assert door.comes("rude") is not None


def test_nobody_waits_longer_than_told() -> None:
    door = Door()
    door.comes("other")
    soon = failure_of(OverloadedError("full", retry_after_s=0.1))
    for _ in range(16):
        door.turned_away.answered("rude", [soon])
    assert door.comes("rude") is not None
    door.clock.now += 0.1
    assert door.comes("rude") is None


def test_only_so_many_callers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    door = Door()
    for number in range(30):
        door.refused(f"caller {number}", 1)
    assert len(door.turned_away._refused) == 10
