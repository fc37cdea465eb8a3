"""Formats numbers as Grafana does."""

from __future__ import annotations

import math
from typing import Final

_SI: Final = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"), (1.0, ""))
_IEC: Final = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_TIMES: Final = ((60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
#: Smaller values are rounding errors and count as 0.
_NOTHING: Final = 1e-9


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """``value`` with its unit, with ``decimals`` or three significant digits. NaN is a dash."""
    return "".join(parts(value, unit, decimals))


def parts(value: float, unit: str, decimals: int | None = None) -> tuple[str, str]:
    """The same as :func:`written`, with the number and the unit apart.

    Raises:
        ValueError: the unit is unknown; no dashboard uses it.
    """
    if math.isnan(value):
        return "–", ""
    if math.isinf(value):
        return ("∞" if value > 0 else "-∞"), ""
    if unit == "percentunit":
        return _digits(value * 100, decimals), "%"
    if unit == "bytes":
        return _scaled(value, _IEC, decimals)
    if unit == "s":
        return _scaled(value, _TIMES, decimals) if abs(value) > _NOTHING else ("0", " s")
    if unit == "reqps":
        return _digits(value, decimals), " req/s"
    if unit.startswith("suffix:"):
        return _digits(value, decimals), unit.removeprefix("suffix:")
    if unit == "short":
        size, name = next(((size, name) for size, name in _SI if abs(value) >= size), (1.0, ""))
        return _digits(value / size, decimals), name
    raise ValueError(f"unknown unit: {unit}")


def _scaled(value: float, sizes: tuple[tuple[float, str], ...], decimals: int | None) -> tuple[str, str]:
    """The value in the largest unit of which it is at least one."""
    size, name = next(((size, name) for size, name in sizes if abs(value) >= size), sizes[-1])
    return _digits(value / size, decimals), f" {name}"


def _digits(value: float, decimals: int | None) -> str:
    """A number rounded to ``decimals``, or to three significant digits without trailing zeros."""
    if decimals is not None:
        return f"{value:.{decimals}f}"
    places = 0 if abs(value) < _NOTHING else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
