"""The report's files: ``report.json``, ``report.md``, ``report.html``, ``networks.svg`` and ``networks.png``.

The two pages come from the templates in ``templates/``. The HTML page is one file that fetches nothing and runs no
script, and that follows the reader's choice of light or dark.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from loadreport.document import document
from loadreport.files import write_atomically
from loadreport.plots import plots, png, svg
from loadreport.report import Report, ReportError

#: The plot that lies beside the Markdown page, which shows it.
_PICTURE = "networks.svg"


def prepare(folder: Path) -> None:
    """Makes the folder and tries to write to it, before a load test takes minutes.

    Raises:
        ReportError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error


def write(report: Report, folder: Path) -> list[Path]:
    """Writes all files and returns their paths; ``report.json`` comes first, in case that a drawing fails.

    Raises:
        ReportError: a file cannot be written.
    """
    written: list[Path] = []

    def put(name: str, content: bytes) -> None:
        write_atomically(folder / name, content)
        written.append(folder / name)

    try:
        put("report.json", (report.model_dump_json(indent=1) + "\n").encode())
        figures = plots(report)
        drawings = {name: svg(figure) for name, figure in figures.items()}
        put("report.md", markdown(report, drawings).encode())
        put("report.html", html(report, drawings).encode())
        if "per_gib" in figures:
            put(_PICTURE, drawings["per_gib"].encode())
            put("networks.png", png(figures["per_gib"]))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return written


def _cannot_write(folder: Path, error: OSError) -> ReportError:
    return ReportError(f"cannot write to {folder}: {error.strerror}")


def markdown(report: Report, drawings: Mapping[str, str]) -> str:
    """The report in Markdown; the one plot that it shows is a file beside it.

    Args:
        drawings: SVG documents by the names of plots.
    """
    return _render("report.md.jinja", report, drawings)


def html(report: Report, drawings: Mapping[str, str]) -> str:
    """The report as a single HTML page with its plots in it.

    Args:
        drawings: SVG documents by the names of plots.
    """
    return _render("report.html.jinja", report, {name: _inline(svg, name) for name, svg in drawings.items()})


def _inline(svg: str, prefix: str) -> Markup:
    """An SVG document as an element of a page: without its prologue, and with ids that no other drawing has."""
    element = svg[svg.index("<svg") :]
    for mark in (' id="', 'href="#', "url(#"):
        element = element.replace(mark, f"{mark}{prefix}-")
    # Our own drawing, in which Matplotlib has escaped every text.
    return Markup(element)  # noqa: S704


def _markdown_text(text: str) -> str:
    """Text in which Markdown sees no marks."""
    for mark in ("\\", "*", "_", "<", "`"):
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def _markdown_cell(text: str) -> str:
    return _markdown_text(text).replace("|", r"\|")


def _render(template: str, report: Report, drawings: Mapping[str, str]) -> str:
    templates = Environment(
        loader=PackageLoader("loadreport"),
        # Names come from the service under test: they are escaped wherever HTML could read them as tags.
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(text=_markdown_text, cell=_markdown_cell)
    shown = document(report)
    return templates.get_template(template).render(
        title=shown.title, warning=shown.warning, sections=shown.sections, drawings=drawings, picture=_PICTURE
    )
