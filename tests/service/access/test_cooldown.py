"""What was done a moment ago is not done again."""

from __future__ import annotations

from service.access.cooldown import Cooldown
from tests.clock import Clock


def test_a_thing_may_be_done_again_after_a_while() -> None:
    clock = Clock()
    cooldown = Cooldown(10.0, clock)
    assert cooldown.wait_s("a") == 0
    cooldown.done("a")
    assert cooldown.wait_s("a") == 10
    clock.now += 4
    # Asking changes nothing.
    assert [cooldown.wait_s("a") for _ in range(3)] == [6, 6, 6]
    clock.now += 6
    assert cooldown.wait_s("a") == 0
    clock.now += 1
    assert cooldown.wait_s("a") == 0
    cooldown.done("a")
    assert cooldown.wait_s("a") == 10


def test_each_thing_has_its_own() -> None:
    cooldown = Cooldown(10.0, Clock())
    cooldown.done("a")
    assert (cooldown.wait_s("a"), cooldown.wait_s("b")) == (10, 0)
