"""How much a caller may ask for, and when it may come back."""

from __future__ import annotations

import pytest

from service.access.keys import Key
from service.access.rates import Rates, Windows
from service.domain.errors import RateLimitedError
from tests.clock import Clock

HASH = "0" * 64


def waits(rates: Rates, caller: str = "a", pictures: int = 1) -> float:
    """How long a caller that sends pictures is told to wait; 0 if it is let in."""
    try:
        rates.admit(caller, pictures)
    except RateLimitedError as error:
        return error.retry_after_s
    return 0.0


def test_so_many_pictures_in_a_window_and_all_of_them_again_after_it() -> None:
    clock = Clock()
    rates = Rates("3/second", None, clock=clock)
    assert waits(rates) == 0
    clock.now += 0.4
    assert [waits(rates) for _ in range(2)] == [0, 0]
    # The window began with the first picture.
    assert [waits(rates) for _ in range(3)] == [pytest.approx(0.6)] * 3
    clock.now += 0.599
    assert waits(rates) == pytest.approx(0.001)
    clock.now += 0.001 + 1e-9
    assert [waits(rates) for _ in range(4)] == [0, 0, 0, pytest.approx(1.0)]


def test_retry_after_holds_for_a_caller_who_was_refused_all_the_while() -> None:
    clock = Clock()
    rates = Rates("2/10 seconds", None, clock=clock)
    wait_s = max(waits(rates) for _ in range(1000))
    clock.now += wait_s
    assert waits(rates) == 0


def test_callers_do_not_share() -> None:
    rates = Rates("1/minute", None, clock=Clock())
    assert [waits(rates, caller) for caller in ("a", "b", "a")] == [0, 0, 60]


def test_several_pictures_count_as_several() -> None:
    rates = Rates("10/second", None, clock=Clock())
    assert [waits(rates, pictures=n) for n in (6, 5, 4, 1)] == [0, 1, 0, 1]


def test_of_several_rates_each_holds() -> None:
    clock = Clock()
    rates = Rates("2/second;3/minute", None, clock=clock)
    assert [waits(rates) for _ in range(3)] == [0, 0, 1]
    clock.now += 1
    assert [waits(rates) for _ in range(2)] == [0, pytest.approx(59)]


@pytest.mark.parametrize("rates", ["2/second;2/minute", "2/minute;2/second"])
def test_a_caller_over_several_rates_is_told_the_longest_wait(rates: str) -> None:
    limited = Rates(rates, None, clock=Clock())
    assert [waits(limited) for _ in range(3)] == [0, 0, 60]
    for pictures, wait_s in (("1/hour", 3600), ("1/second", 60)):
        both = Rates(pictures, 1.0, clock=Clock())
        both.admit("a")
        both.used("a", 2.0)
        assert waits(both) == wait_s


def test_a_refusal_says_what_is_allowed() -> None:
    rates = Rates("2/10 seconds", None, clock=Clock())
    rates.admit("a", 2)
    with pytest.raises(RateLimitedError, match="2 pictures per 10 seconds") as raised:
        rates.admit("a")
    assert raised.value.quota == (2, 10)


def test_device_time_is_charged_afterwards() -> None:
    clock = Clock()
    rates = Rates(None, 2.0, clock=clock)
    rates.used("a", 0.5)
    assert waits(rates) == 0
    clock.now += 20
    rates.used("a", 1.4)
    assert waits(rates) == 0
    # What ran when the time was over is answered, and charged.
    rates.used("a", 30.0)
    with pytest.raises(RateLimitedError, match="2 device seconds a minute") as raised:
        rates.admit("a")
    assert raised.value.quota is None
    assert raised.value.retry_after_s == pytest.approx(40)
    assert waits(rates, "b") == 0
    clock.now += 40
    assert waits(rates) == 0


def test_the_shortest_use_of_a_device_counts() -> None:
    rates = Rates(None, 1e-5, clock=Clock())
    for _ in range(10):
        assert waits(rates) == 0
        rates.used("a", 1e-9)
    assert waits(rates) == 60


def test_without_rates_nothing_is_counted() -> None:
    rates = Rates(None, None, clock=Clock())
    rates.used("a", 1e9)
    assert [waits(rates) for _ in range(1000)] == [0] * 1000
    assert len(rates.windows) == 0


def test_a_key_may_have_rates_of_its_own() -> None:
    keys = {
        "key:fast": Key(name="fast", sha256=HASH, rate_requests="5/second"),
        "key:usual": Key(name="usual", sha256=HASH),
        "key:dear": Key(name="dear", sha256=HASH, rate_device_s=0.5),
    }
    rates = Rates("2/second", 1.0, keys.get, clock=Clock())
    assert [waits(rates, "key:fast") for _ in range(6)] == [0] * 5 + [1]
    assert [waits(rates, "key:usual") for _ in range(3)] == [0, 0, 1]
    assert [waits(rates, "192.0.2.7") for _ in range(3)] == [0, 0, 1]
    for caller in ("key:fast", "key:dear"):
        rates.used(caller, 0.7)
    assert waits(rates, "key:dear") == 60
    assert waits(Rates(None, None, keys.get, clock=Clock()), "key:usual", 10**6) == 0


def test_a_rate_that_changes_in_the_file_holds_from_the_next_picture_on() -> None:
    keys = {"key:a": Key(name="a", sha256=HASH, rate_requests="1/minute")}
    rates = Rates(None, None, keys.get, clock=Clock())
    assert [waits(rates, "key:a") for _ in range(2)] == [0, 60]
    keys["key:a"] = Key(name="a", sha256=HASH, rate_requests="4/minute")
    assert [waits(rates, "key:a") for _ in range(2)] == [0, 0]


def test_processes_that_divide_the_requests_divide_the_rate() -> None:
    rates = Rates("10/second", 3.0, shares=3, clock=Clock())
    assert [waits(rates) for _ in range(4)] == [0, 0, 0, 1]
    rates.used("b", 0.99)
    assert waits(rates, "b") == 0
    rates.used("b", 0.02)
    with pytest.raises(RateLimitedError, match="each of 3 processes"):
        rates.admit("b")
    # Less than one is none: each lets one in.
    assert waits(Rates("1/second", None, shares=4, clock=Clock())) == 0


def test_the_number_of_windows_is_bounded_and_the_oldest_go_first() -> None:
    clock = Clock()
    windows = Windows(clock, most=3)
    for caller in "abcd":
        windows.incr(caller, 60, 5)
    windows.incr("b", 60, 1)
    assert len(windows) == 3
    assert [windows.get(caller) for caller in "abcd"] == [0, 6, 5, 5]
    # A window that has ended begins anew, at the end of the line.
    clock.now += 60
    windows.incr("b", 60, 2)
    windows.incr("e", 60, 1)
    assert [windows.get(caller) for caller in "bcde"] == [2, 0, 0, 1]
    assert len(windows) == 3


def test_many_strangers_cost_little_memory() -> None:
    rates = Rates("1/second", 1.0, clock=Clock())
    for number in range(30_000):
        rates.admit(f"2001:db8:{number:x}::/64")
    assert len(rates.windows) == 20_000


def test_windows_are_a_whole_storage_of_limits() -> None:
    clock = Clock()
    windows = Windows(clock)
    assert windows.check()
    windows.incr("a", 10, 2)
    assert windows.get_expiry("a") == clock.now + 10
    assert windows.get_expiry("b") == clock.now
    windows.clear("a")
    assert windows.get("a") == 0
    windows.incr("a", 10)
    assert windows.reset() == 1
    assert len(windows) == 0
