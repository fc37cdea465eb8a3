"""Rates as an operator writes them: ``100/second``, ``10 per 2 minutes``, or several: ``20/second;500/minute``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem


def parse_rates(text: str) -> list[RateLimitItem]:
    """The rates in a text.

    Raises:
        ValueError: it is none; the text says how rates are written.
    """
    # Imported here: it takes 80 ms, and most services have no rates.
    from limits import parse_many

    try:
        found = list(parse_many(text))
    except ValueError:
        found = []
    if not found or any(item.amount < 1 or item.get_expiry() < 1 for item in found):
        raise ValueError("write it as in 100/second, or as several: 20/second;500/minute")
    return found


def checked_rate(text: str) -> str:
    """The text, if it is a rate.

    Raises:
        ValueError: see ``parse_rates``.
    """
    parse_rates(text)
    return text
