"""How many pictures a caller may send, and how much of the device it may use.

The notation and the counting are those of the library ``limits``: windows of a fixed length, which begin with a
caller's first picture. At a window's end all of it is free again, so a refused caller can be told exactly when to come
back; in the worst case a caller gets two windows' worth at the turn between two. What was refused does not count.

Device time is known only afterwards, so it is charged afterwards: what runs when a caller has used up its time is
answered, and what comes next is refused.

The library's own storage is not used: it goes through all callers a hundred times a second in a thread of its own,
keeps as many as there are, and its windows move when the machine's clock is set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from limits.limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from service.access.keys import Key
from service.config.rate import parse_rates
from service.domain.errors import RateLimitedError

if TYPE_CHECKING:
    from service.config.settings import Settings

#: The most windows that are kept. Strangers with IPv6 have as many addresses as they like.
MOST_WINDOWS = 20_000


class Windows(Storage):
    """How much each caller has used in its current window: a storage of ``limits``, bounded, on a monotonic clock. Not
    thread-safe.

    Args:
        clock: seconds, monotonic.
        most: the most windows that are kept; beyond it, those go that were begun first.
    """

    STORAGE_SCHEME = ["topfive"]  # noqa: RUF012 - as the library declares it

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_WINDOWS) -> None:
        super().__init__()
        self._clock = clock
        self._most = most
        self._used: dict[str, tuple[float, int]] = {}
        """The end of the window, and what was used in it, in the order in which the windows began."""

    def __len__(self) -> int:
        return len(self._used)

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = self._clock()
        end, used = self._used.get(key, (0.0, 0))
        if end <= now:
            self._used.pop(key, None)
            while len(self._used) >= self._most:
                del self._used[next(iter(self._used))]
            end, used = now + expiry, 0
        self._used[key] = end, used + amount
        return used + amount

    def get(self, key: str) -> int:
        end, used = self._used.get(key, (0.0, 0))
        return used if end > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        """When the window ends, on the clock."""
        now = self._clock()
        return max(now, self._used.get(key, (now, 0))[0])

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._used)
        self._used.clear()
        return count

    def clear(self, key: str) -> None:
        self._used.pop(key, None)


class Rates:
    """The rates of all callers of a process. Not thread-safe.

    Args:
        requests: pictures that a caller may send (``100/second;2000/minute``); None for any number.
        device_s: device seconds that a caller may use in a minute; None for any number.
        key_of: finds the key of a caller, which may have rates of its own.
        shares: how many processes divide a caller's requests evenly: each allows its share.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        requests: str | None,
        device_s: float | None,
        key_of: Callable[[str], Key | None] = lambda _: None,
        shares: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests, self._device_s = requests, device_s
        self._key_of = key_of
        self._shares = shares
        self._clock = clock
        self.windows = Windows(clock)
        self._limiter = FixedWindowRateLimiter(self.windows)
        self._parsed: dict[tuple[str | None, float | None], _Limits] = {}

    @classmethod
    def of(cls, settings: Settings, key_of: Callable[[str], Key | None], shares: int = 1) -> Rates:
        """The rates that the settings and the keys state."""
        return cls(settings.rate_requests, settings.rate_device_s, key_of, shares)

    def admit(self, caller: str, pictures: int = 1) -> None:
        """Counts pictures of a caller, if it may send them now.

        Args:
            caller: who asks.
            pictures: how many.

        Raises:
            RateLimitedError: it may not; says when it may, by all of its limits.
        """
        limits = self._limits(caller)
        refused = [
            self._refused(item, caller, f"you may send {_worded(item)}", (item.amount, item.get_expiry()))
            for item in limits.pictures
            if not self._limiter.test(item, caller, cost=pictures)
        ]
        if limits.device is not None and not self._limiter.test(limits.device, caller):
            text = f"you may use {limits.device_s:g} device seconds a minute"
            refused.append(self._refused(limits.device, caller, text, None))
        if refused:
            raise max(refused, key=lambda error: error.retry_after_s)
        for item in limits.pictures:
            self._limiter.hit(item, caller, cost=pictures)

    def used(self, caller: str, device_s: float) -> None:
        """Charges device time that a caller has used, in seconds."""
        item = self._limits(caller).device
        if item is not None:
            self._limiter.hit(item, caller, cost=math.ceil(device_s * 1e6))

    def _limits(self, caller: str) -> _Limits:
        own = self._key_of(caller)
        requests, device_s = self._requests, self._device_s
        if own is not None:
            requests, device_s = own.rate_requests or requests, own.rate_device_s or device_s
        found = self._parsed.get((requests, device_s))
        if found is None:
            if len(self._parsed) > 1000:
                self._parsed.clear()
            found = self._parsed[requests, device_s] = _Limits(requests, device_s, self._shares)
        return found

    def _refused(self, item: RateLimitItem, caller: str, text: str, quota: tuple[int, int] | None) -> RateLimitedError:
        left_s = max(0.0, self._limiter.get_window_stats(item, caller).reset_time - self._clock())
        share = "" if self._shares == 1 else f" at each of {self._shares} processes"
        return RateLimitedError(f"{text}{share}", left_s, quota)


class _Limits:
    """The limits of one caller, or of all that have the same."""

    def __init__(self, requests: str | None, device_s: float | None, shares: int) -> None:
        self.pictures = [_share(item, shares) for item in (() if requests is None else parse_rates(requests))]
        self.device_s = device_s
        # The library counts whole numbers: microseconds here.
        micros = None if device_s is None else max(1, int(device_s * 1e6 / shares))
        self.device = None if micros is None else RateLimitItemPerMinute(micros, namespace="device")


def _share(item: RateLimitItem, shares: int) -> RateLimitItem:
    share: Any = type(item)(max(1, item.amount // shares), item.multiples, namespace="pictures")
    assert isinstance(share, RateLimitItem)
    return share


def _worded(item: RateLimitItem) -> str:
    name = item.GRANULARITY.name
    return f"{item.amount} pictures per {name if item.multiples == 1 else f'{item.multiples} {name}s'}"
