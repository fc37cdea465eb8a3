"""The report's files: pages that are whole and self-contained, and that no name from outside can break."""

from __future__ import annotations

import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadreport import pages
from loadreport.pages import html, markdown
from loadreport.plots import plots, svg
from loadreport.report import Report, ReportError, read_report
from tests import reports

#: What a service that means no good may call a network.
HOSTILE = '<img src=x onerror="alert(1)">&|*_`$x$'


@pytest.fixture(scope="module")
def full() -> Report:
    return reports.full()


@pytest.fixture(scope="module")
def page(full: Report) -> str:
    return html(full, {name: svg(figure) for name, figure in plots(full).items()})


class Tags(HTMLParser):
    """The elements of a page: those that are open, ids, what it asks for, and every name of an element."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.asked: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
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


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    return tags


def test_html_stands_alone(page: str) -> None:
    tags = read(page)
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


def test_html_colours_verdicts_and_aligns_words_left(page: str) -> None:
    assert '<td class="word failed">failed</td>' in page
    assert '<td class="word open">not judged</td>' in page
    assert '<td class="word held">held</td>' in page
    assert '<th class="word">network</th><th>pictures/s</th>' in page
    assert '<td class="word">alexnet@untrained</td><td>42.0</td>' in page


def test_names_from_the_service_are_text_in_html() -> None:
    """Nothing that the service or the host's name says becomes an element."""
    network = reports.network("vgg16@untrained", problem=HOSTILE)
    network.name = network.variant = network.labels = HOSTILE
    beside = reports.network("alexnet@untrained", labels=HOSTILE, on_front=True)
    budgets = reports.budget_run(reports.budget(HOSTILE, 150.0), pictures_by_model={HOSTILE: 1})
    report = reports.report(network, beside, host=HOSTILE, device=HOSTILE, partial=HOSTILE, budget_run=budgets)
    drawings = {name: svg(figure) for name, figure in plots(report).items()}
    assert len(drawings) == 4
    found = html(report, drawings)
    assert "img" not in read(found).names
    assert "&lt;img src=x onerror=" in found


def test_names_from_the_service_are_text_in_markdown() -> None:
    network = reports.network("vgg16@untrained")
    network.name = HOSTILE
    page = markdown(reports.report(network, host=HOSTILE), {})
    escaped = '\\<img src=x onerror="alert(1)">&|\\*\\_\\`$x$'
    assert f"# Load test of {escaped}\n" in page
    # In a table the bar would begin a cell.
    assert "| " + escaped.replace("|", "\\|") + " |" in page
    assert not re.search(r"(?<!\\)<img", page)


def test_markdown_has_every_figure(full: Report) -> None:
    page = markdown(full, {})
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert "40.9 x" in page
    assert lines["footprint: googlenet@untrained"].split("|")[4:6] == [" failed ", " 90.0 % above it "]
    assert "vgg19@untrained: cannot be \\<loaded>." in page
    # A network of another task is no rival, and says so.
    assert re.search(r"lenet5@untrained \| 1,000 .* x\\\* \|", page)
    # Words to the left, figures to the right.
    assert "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |" in page


def test_markdown_shows_the_plot_that_is_written_beside_it(full: Report) -> None:
    assert "networks.svg" not in markdown(full, {})
    assert "![pictures a second per GiB by network](networks.svg)" in markdown(full, {"per_gib": "<svg/>"})


def test_a_partial_report_says_so_first() -> None:
    report = reports.report(partial="interrupted", budget_run=None, no_budget_run="not reached: interrupted")
    page = markdown(report, {})
    assert page.index("PARTIAL: this load test ended early (interrupted)") < page.index("googlenet gives")
    assert "No figures: not reached: interrupted." in page
    shown = html(report, {})
    assert shown.count("PARTIAL") == 1
    assert shown.index('<p class="partial">PARTIAL') < shown.index('<p class="first">googlenet gives')


def test_an_empty_report_is_a_page_too(tmp_path: Path) -> None:
    report = reports.report(partial="the service has gone", budget_run=None)
    report.networks = []
    assert plots(report) == {}
    pages.write(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    assert "networks.svg" not in (tmp_path / "report.md").read_text()
    assert "<p>None.</p>" in (tmp_path / "report.html").read_text()


def test_files_are_whole_and_readable_again(full: Report, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("an earlier one")
    written = pages.write(full, tmp_path)
    names = ["report.json", "report.md", "report.html", "networks.svg", "networks.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o644}
    assert read_report(tmp_path / "report.json") == full


def test_figures_are_written_although_a_drawing_fails(
    full: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(report: Report) -> None:
        raise RuntimeError("no drawing")

    monkeypatch.setattr(pages, "plots", fail)
    with pytest.raises(RuntimeError, match="no drawing"):
        pages.write(full, tmp_path)
    assert read_report(tmp_path / "report.json") == full


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ReportError, match="cannot write to"):
        pages.prepare(tmp_path / "file")
    with pytest.raises(ReportError, match="cannot write to"):
        pages.write(reports.report(), tmp_path / "absent")
    pages.prepare(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_the_committed_pages_are_what_the_committed_figures_give() -> None:
    committed = Path(__file__).parents[2] / "docs" / "loadtest"
    report = read_report(committed / "report.json")
    drawings = {name: svg(figure) for name, figure in plots(report).items()}
    assert (committed / "report.md").read_text() == markdown(report, drawings)
    texts = [
        re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
        for page in ((committed / "report.html").read_text(), html(report, drawings))
    ]
    assert texts[0] == texts[1]


def test_names_begin_no_line_of_their_own_in_markdown() -> None:
    report = reports.report(reports.network("vgg16@untrained", problem="cannot\n\n# be loaded"), host="a\n\n# b")
    page = markdown(report, {})
    assert "\n# be loaded" not in page
    assert page.startswith("# Load test of a # b\n")
