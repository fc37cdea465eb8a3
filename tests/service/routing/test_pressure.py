"""The price of device time: refusals raise it, pictures that are let in and time lower it."""

from __future__ import annotations

import math

import pytest

from service.routing.pressure import Pressure
from tests.clock import Clock


def refused(pressure: Pressure, times: int) -> None:
    """By as many callers, at the same moment."""
    for number in range(times):
        pressure.refused(f"caller {number}")


def test_it_is_nothing_until_somebody_is_refused() -> None:
    pressure = Pressure(Clock())
    for _ in range(10):
        pressure.admitted()
    assert pressure.price == 0


def test_each_refusal_raises_it_by_a_factor_and_it_has_a_limit() -> None:
    clock = Clock()
    prices = []
    for times in (1, 2, 4, 8, 100, 1000):
        pressure = Pressure(clock)
        refused(pressure, times)
        prices.append(pressure.price)
    assert prices[:4] == pytest.approx([math.exp(0.3 * times) - 1 for times in (1, 2, 4, 8)])
    assert prices[4] == prices[5] == pytest.approx(2999)


def test_one_caller_alone_cannot_raise_it_quickly() -> None:
    clock = Clock()
    pressure = Pressure(clock)
    for _ in range(1000):
        pressure.refused("rude")
    once = pressure.price
    assert once == pytest.approx(math.exp(0.3) - 1)
    pressure.refused("another")
    assert pressure.price > once
    clock.now += 0.1
    before = pressure.price
    pressure.refused("rude")
    assert pressure.price > before


def test_one_refusal_in_two_hundred_keeps_it_where_it_is() -> None:
    for admitted, moves in ((200, 0), (400, -1), (50, 1)):
        clock = Clock()
        pressure = Pressure(clock)
        refused(pressure, 10)
        before = pressure.price
        for number in range(5):
            pressure.refused(f"later {number}")
            for _ in range(admitted):
                pressure.admitted()
        ratio = pressure.price / before
        assert abs(ratio - 1) < 0.01 if not moves else (ratio - 1) * moves > 0.1


def test_it_falls_while_time_passes() -> None:
    clock = Clock()
    pressure = Pressure(clock)
    refused(pressure, 10)
    before = pressure.price
    clock.now += 30
    assert pressure.price == pytest.approx((before + 1) / math.e - 1)
    clock.now += 60
    assert pressure.price == 0
    pressure.admitted()
    assert pressure.price == 0


def test_callers_who_have_gone_are_forgotten() -> None:
    clock = Clock()
    pressure = Pressure(clock)
    refused(pressure, 5000)
    assert len(pressure._raised) <= 1024


def test_it_does_not_rise_once_everybody_has_the_smallest_network_that_will_do() -> None:
    clock = Clock()
    pressure = Pressure(clock)
    pressure.refused("first")
    for number in range(60):
        clock.now += 0.1
        if number < 20:
            pressure.admitted(spares=True)
        elif number == 20:
            at_most = pressure.price
        pressure.refused(f"caller {number}")
    # A second for what has been let in already; then it fades as it always does.
    assert pressure.price < at_most * math.exp(0.3 * 12)
    before = pressure.price
    pressure.refused("another")
    assert pressure.price == before
    pressure.admitted(spares=True)
    pressure.refused("yet another")
    assert pressure.price > before
