"""What is done too often waits until it was done seldom enough."""

from __future__ import annotations

from service.access.cooldown import Cooldown
from tests.clock import Clock


def test_so_often_at_once_and_then_as_the_oldest_is_forgotten() -> None:
    clock = Clock()
    cooldown = Cooldown(2, 10.0, clock)
    assert cooldown.take("a") == 0
    clock.now += 4
    assert cooldown.take("a") == 0
    assert cooldown.take("a") == 6
    clock.now += 5
    # What was refused does not count.
    assert cooldown.take("a") == 1
    clock.now += 1
    assert cooldown.take("a") == 0
    assert cooldown.take("a") == 4


def test_each_thing_has_its_own() -> None:
    cooldown = Cooldown(1, 10.0, Clock())
    assert (cooldown.take("a"), cooldown.take("b")) == (0, 0)
    assert cooldown.take("a") == 10
