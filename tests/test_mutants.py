"""The tables of ``make mutants``: each row can still be tried, and the tables are as large as they should be."""

from __future__ import annotations

from tests.mutants.__main__ import read_tables, wrong_rows

ROWS = read_tables()


def test_every_row_can_be_tried() -> None:
    assert wrong_rows(ROWS) == []


def test_no_row_is_there_twice() -> None:
    assert len({(row.file, row.search, row.replace) for row in ROWS}) == len(ROWS) >= 80
