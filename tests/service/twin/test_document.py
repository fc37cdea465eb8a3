"""The page has the figures of the report."""

from __future__ import annotations

from service.twin.document import markdown, table
from service.twin.report import report
from tests.pages import table as read_table
from tests.service.twin.test_report import outcome, refused, sent


def test_each_class_has_a_row() -> None:
    made = report(outcome(sent(took=0.04), sent(took=0.06, model="googlenet"), refused(1.0), refused(1.5, None, "x")))
    page = markdown(made)
    rows = {row[0]: row[1:] for row in read_table(page, "budget")}
    assert list(rows) == ["`hasty`", "`patient`", "**all**"]
    shown = ["4", "2", "50.0%", "100.0%", "0.20", "50.00", "50", "59", "1 overloaded, 1 x", "0% of 0", "3.0", "0.0"]
    assert rows["`hasty`"][:12] == shown
    assert rows["`patient`"][8] == "none"
    networks = {row[0]: row[1:] for row in read_table(page, "network")}
    assert networks == {"alexnet": ["50.0%", "0.0%", "50.0%"], "googlenet": ["50.0%", "0.0%", "50.0%"]}


def test_it_says_what_was_simulated() -> None:
    page = markdown(report(outcome(sent(), decisions_s=[5e-5])))
    assert page.startswith("# router at 10 pictures a second\n")
    assert "poisson arrivals for 60 s, seed 1; 1 x cpu-2-cores;" in page
    assert "A decision took 50 us (p50), 50 us (p95) of this machine." in page


def test_a_table_is_one_of_markdown() -> None:
    assert table(("a", "b"), [("x", "1")]) == "| a | b |\n|---|---:|\n| x | 1 |"
