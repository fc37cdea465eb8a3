"""The report's pages and plots: whole, self-contained, and honest about what is missing."""

from __future__ import annotations

import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadreport import pages
from loadreport.comparison import compare
from loadreport.document import headline, sections
from loadreport.gates import DEFAULT, judge, read_gates
from loadreport.html import html
from loadreport.markdown import markdown
from loadreport.pareto import mark_front
from loadreport.plots import plots, png, svg
from loadreport.report import Report, ReportError, read_report
from tests import reports


@pytest.fixture
def full() -> Report:
    """Everything there can be in one."""
    report = reports.report(
        *(reports.network(name) for name in reports.FIGURES),
        reports.network("lenet5@untrained"),
        reports.network("vgg19@untrained", knee=None, steps=[], problem="cannot be <loaded>"),
    )
    mark_front(report.networks)
    report.gates = judge(read_gates(DEFAULT), report, {"googlenet@untrained": 100.0})
    report.comparison = compare(report, reports.report())
    return report


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "!doctype"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.asked.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_headline_is_per_gib_against_vgg16(full: Report) -> None:
    assert headline(full) == "googlenet gives 40.9 times VGG-16's pictures a second per GiB: 192 against 4.69."
    without = reports.report(reports.network("googlenet@untrained"))
    assert "VGG-16 was not measured" in headline(without)


def test_html_stands_alone(full: Report) -> None:
    page = html(full, {name: svg(figure) for name, figure in plots(full).items()})
    tags = _Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    assert page.count("<svg") == 4
    # Nothing is fetched, nothing is run, and drawings do not take each other's marks.
    assert all(target.startswith("#") for target in tags.asked)
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(tags.ids) == len(set(tags.ids))
    assert {target.removeprefix("#") for target in tags.asked} <= set(tags.ids)
    assert "prefers-color-scheme: dark" in page
    assert "cannot be &lt;loaded&gt;" in page


def test_markdown_has_every_figure(full: Report) -> None:
    page = markdown(full)
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert "40.9 x" in page
    assert lines["footprint: googlenet@untrained"].split("|")[4:6] == [" failed ", " 90.0 % above it "]
    assert "vgg19@untrained: cannot be \\<loaded>." in page
    # A network of another task is no rival, and says so.
    assert re.search(r"lenet5@untrained \| 1,000 .* x\\\* \|", page)


def test_tables_have_as_many_cells_as_heads(full: Report) -> None:
    shown = [section.table for section in sections(full) if section.table is not None]
    assert len(shown) == 6
    for table in shown:
        assert {len(row) for row in table.rows} == {len(table.head)}


def test_few_samples_are_said_to_be_few(full: Report) -> None:
    assert "A p99 of 120 answers rests on the slowest 1 of them" in markdown(full)
    many = reports.report(reports.network("vgg16@untrained", knee=reports.knee(4, samples=5000)))
    assert "rests on the slowest" not in markdown(many)


def test_where_the_generator_was_the_limit_it_is_said(full: Report) -> None:
    assert "could not send faster" not in markdown(full)
    full.networks[0].generator_bound = True
    assert "could not send faster: alexnet@untrained may hold more" in markdown(full)


def test_a_partial_report_says_so_first() -> None:
    report = reports.report(partial="interrupted", budget_run=None, no_budget_run="not reached: interrupted")
    page = markdown(report)
    assert page.index("PARTIAL: this load test ended early (interrupted)") < page.index("googlenet gives")
    assert "No figures: not reached: interrupted." in page
    assert '<p class="partial">PARTIAL' in html(report, {})


def test_an_empty_report_is_a_page_too(tmp_path: Path) -> None:
    report = reports.report(partial="the service has gone", budget_run=None)
    report.networks = []
    assert plots(report) == {}
    pages.write(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    assert "networks.svg" not in (tmp_path / "report.md").read_text()


def test_plots_are_drawn_the_same_way_each_time(full: Report) -> None:
    figures = plots(full)
    assert list(figures) == ["per_gib", "front", "budgets", "steps"]
    drawing = svg(figures["per_gib"])
    assert drawing == svg(plots(full)["per_gib"])
    words = "".join(ElementTree.fromstring(drawing).itertext())
    assert "192  (40.9 x VGG-16)" in words
    assert "lenet5" not in words
    assert png(figures["per_gib"]).startswith(b"\x89PNG")


def test_files_are_whole_and_readable_again(full: Report, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("an earlier one")
    written = pages.write(full, tmp_path)
    names = ["report.json", "report.md", "report.html", "networks.svg", "networks.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o644}
    assert read_report(tmp_path / "report.json") == full


def test_folders_and_reports_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ReportError, match="cannot write to"):
        pages.prepare(tmp_path / "file")
    with pytest.raises(ReportError, match="cannot write to"):
        pages.write(reports.report(), tmp_path / "absent")
    with pytest.raises(ReportError, match="no report of format 1"):
        read_report(tmp_path / "file")
    with pytest.raises(ReportError, match="No such file"):
        read_report(tmp_path / "absent.json")
    pages.prepare(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
