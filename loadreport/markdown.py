"""The report as Markdown."""

from __future__ import annotations

from loadreport.document import sections
from loadreport.formatting import Section, Table
from loadreport.report import Report

#: The plot that is written beside the page.
PLOT = "networks.svg"


def markdown(report: Report) -> str:
    """A page for people, which shows ``networks.svg`` beside it."""
    parts = [f"# Load test of {report.host}"]
    for section in sections(report):
        parts += [f"## {section.title}", *_body(section, report)]
    return "\n\n".join(parts) + "\n"


def _body(section: Section, report: Report) -> list[str]:
    body = [_text(paragraph) for paragraph in section.text]
    if "per_gib" in section.plots and any(network.per_gib for network in report.networks):
        body.append(f"![pictures a second per GiB by network]({PLOT})")
    if section.table is not None:
        body.append(table(section.table))
    return [*body, *(_text(note) for note in section.notes)]


def table(shown: Table) -> str:
    """A Markdown table; figures stand right."""
    if not shown.rows:
        return "None."
    rule = ["---"] * shown.left + ["---:"] * (len(shown.head) - shown.left)
    rows = [shown.head, rule, *([_text(cell).replace("|", r"\|") for cell in row] for row in shown.rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _text(text: str) -> str:
    """Without what Markdown would read as marks."""
    for mark in ("\\", "*", "_", "<", "`"):
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
