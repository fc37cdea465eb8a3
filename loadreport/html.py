"""The report as one HTML file: nothing is fetched, no script runs, and it follows the reader's light or dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from loadreport.document import sections
from loadreport.formatting import Section, Table
from loadreport.report import Report

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2529; --soft: #5d6b72; --ground: #fff; --line: #d9dfe2; --band: #f4f7f8;
  --good: #1d7f43; --bad: #b3261e; --open: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ec; --soft: #9fadb4; --ground: #14191c; --line: #333d43; --band: #1b2226;
    --good: #5fcf8a; --bad: #ff8a80; --open: #e3b341; }
}
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1.5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
p { max-width: 46rem; margin: .5rem 0; }
.first { font-size: 1.25rem; font-weight: 600; }
.partial { border-left: 4px solid var(--bad); padding-left: .7rem; font-weight: 600; }
.note { color: var(--soft); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .8rem 0; width: 100%; }
th, td { padding: .32rem .65rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td.word, th.word { text-align: left; }
tbody tr:nth-child(even) { background: var(--band); }
.passed, .better, .held { color: var(--good); } .failed, .worse { color: var(--bad); font-weight: 600; }
.open { color: var(--open); font-weight: 600; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
"""
_CLASSES = {
    "passed": "passed",
    "failed": "failed",
    "not judged": "open",
    "better": "better",
    "worse": "worse",
    "held": "held",
}
#: What drawings show, for those who do not see them.
_SHOWS = {
    "per_gib": "Pictures a second per GiB, pictures a second and footprint, by network",
    "front": "Top-1 accuracy over footprint and over the latency of a lone request, by network",
    "budgets": "p50 and p99 over the budget, by class of budget",
    "steps": "p99 over the rate of each step, by network",
}


def html(report: Report, drawings: Mapping[str, str]) -> str:
    """A page on its own.

    Args:
        drawings: SVG by the names of plots.
    """
    body = "\n".join(_section(section, drawings, first=i == 0) for i, section in enumerate(sections(report)))
    title = escape(f"Load test of {report.host}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section, drawings: Mapping[str, str], *, first: bool) -> str:
    parts = [f"<section>\n<h2>{escape(section.title)}</h2>"]
    said = False
    for text in section.text:
        partial = first and text.startswith("PARTIAL")
        kind = "partial" if partial else "first" if first and not said else ""
        said = said or not partial
        parts.append(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")
    if section.table is not None:
        parts.append(_table(section.table))
    parts += [f'<p class="note">{escape(note)}</p>' for note in section.notes]
    parts += [_figure(name, drawings[name]) for name in section.plots if name in drawings]
    return "\n".join([*parts, "</section>"])


def _figure(name: str, drawing: str) -> str:
    return f'<figure role="img" aria-label="{escape(_SHOWS[name])}">{inline(drawing, name)}</figure>'


def _table(table: Table) -> str:
    if not table.rows:
        return "<p>None.</p>"
    head = "".join(f"<th{_word(i, table)}>{escape(cell)}</th>" for i, cell in enumerate(table.head))
    rows = ["<tr>" + "".join(_cell(i, cell, table) for i, cell in enumerate(row)) + "</tr>" for row in table.rows]
    lines = "\n".join(rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table></div>'


def _word(column: int, table: Table) -> str:
    return ' class="word"' if column < table.left else ""


def _cell(column: int, cell: str, table: Table) -> str:
    kind = " ".join(filter(None, ["word" if column < table.left else "", _CLASSES.get(cell, "")]))
    return f'<td class="{kind}">{escape(cell)}</td>' if kind else f"<td>{escape(cell)}</td>"


def inline(svg: str, prefix: str) -> str:
    """An SVG document as an element of a page: without its prologue, its ids apart from other drawings'."""
    element = svg[svg.index("<svg") :]
    for mark in (' id="', 'href="#', "url(#"):
        element = element.replace(mark, f"{mark}{prefix}-")
    return element
