"""How the report writes figures and errors."""

from __future__ import annotations

from pydantic import ValidationError

#: Stands for a figure that is not known.
UNKNOWN = "–"


def number(value: float | None) -> str:
    """A figure with three significant digits below 1,000, and as a whole number from there on."""
    if value is None:
        return UNKNOWN
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """A share of one as a percentage."""
    return f"{100 * share:.{digits}f} %"


def first_error(error: ValidationError) -> str:
    """The first error that pydantic found: the field's path, and what is wrong."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
