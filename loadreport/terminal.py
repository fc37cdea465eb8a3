"""The report on a terminal: the answer, the networks, the gates."""

from __future__ import annotations

from collections.abc import Iterator

from rich import table
from rich.markup import escape

from loadreport.document import sections
from loadreport.formatting import Table
from loadreport.report import Report

_SHOWN = ("Networks", "Mixed budgets", "Gates", "Against the previous report")
_COLOURS = {"passed": "green", "failed": "red", "not judged": "yellow", "worse": "red", "better": "green"}


def summary(report: Report) -> Iterator[table.Table | str]:
    """What to print, one below the other."""
    first, *others = sections(report)
    yield from (escape(text) for text in first.text)
    for section in others:
        if section.title in _SHOWN and section.table is not None and section.table.rows:
            yield ""
            yield _table(section.title, section.table)


def _table(title: str, shown: Table) -> table.Table:
    found = table.Table(box=None, pad_edge=False, title=title, title_justify="left")
    for i, name in enumerate(shown.head):
        found.add_column(name, justify="left" if i < shown.left else "right")
    for row in shown.rows:
        found.add_row(*(f"[{_COLOURS[cell]}]{cell}[/]" if cell in _COLOURS else escape(cell) for cell in row))
    return found
