"""What a page of the report is made of: sections of sentences and a table, which Markdown and HTML only set."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Text cells; the first ``left`` columns are words, the others figures."""

    head: list[str]
    rows: list[list[str]]
    left: int = 1


@dataclass(frozen=True)
class Section:
    """``plots``: names of plots that belong under the table."""

    title: str
    text: list[str] = field(default_factory=list)
    table: Table | None = None
    notes: list[str] = field(default_factory=list)
    plots: tuple[str, ...] = ()


def number(value: float | None) -> str:
    """Three significant digits; a dash for what is not known."""
    if value is None:
        return "–"
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """A share of one, in percent."""
    return f"{100 * share:.{digits}f} %"
