"""The report on a terminal: the answer, the networks, the budgets, the gates and the comparison."""

from __future__ import annotations

from collections.abc import Iterator

from rich import table
from rich.markup import escape

from loadreport.document import Table, document
from loadreport.report import Report

_SHOWN = ("Networks", "Mixed budgets", "Gates", "Against the previous report")
_COLOURS = {"passed": "green", "failed": "red", "not judged": "yellow", "worse": "red", "better": "green"}


def summary(report: Report) -> Iterator[table.Table | str]:
    """What to print, one below the other."""
    shown = document(report)
    answer, *others = shown.sections
    if shown.warning is not None:
        yield escape(shown.warning)
    yield from map(escape, answer.text)
    for section in others:
        if section.title in _SHOWN and section.table is not None and section.table.rows:
            yield ""
            yield _table(section.title, section.table)


def _table(title: str, shown: Table) -> table.Table:
    found = table.Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column, name in enumerate(shown.head):
        found.add_column(name, justify="left" if column < shown.left else "right")
    for row in shown.rows:
        found.add_row(*(f"[{_COLOURS[cell]}]{cell}[/]" if cell in _COLOURS else escape(cell) for cell in row))
    return found
