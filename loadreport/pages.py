"""Writes a report: ``report.json``, ``report.md``, ``report.html``, ``networks.svg`` and ``networks.png``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from loadreport.html import html
from loadreport.markdown import PLOT, markdown
from loadreport.plots import plots, png, svg
from loadreport.report import Report, ReportError

JSON = "report.json"


def prepare(folder: Path) -> None:
    """Makes the folder, before minutes are spent on what could not be written.

    Raises:
        ReportError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReportError(f"cannot write to {folder}: {error.strerror}") from error


def write(report: Report, folder: Path) -> list[Path]:
    """Writes every file, each whole or not at all; the figures first, whatever happens to the drawings.

    Raises:
        ReportError: one cannot be written.
    """
    try:
        written = [_put(folder / JSON, (report.model_dump_json(indent=1) + "\n").encode())]
        figures = plots(report)
        drawings = {name: svg(figure) for name, figure in figures.items()}
        written.append(_put(folder / "report.md", markdown(report).encode()))
        written.append(_put(folder / "report.html", html(report, drawings).encode()))
        if "per_gib" in figures:
            written.append(_put(folder / PLOT, drawings["per_gib"].encode()))
            written.append(_put((folder / PLOT).with_suffix(".png"), png(figures["per_gib"])))
    except OSError as error:
        raise ReportError(f"cannot write to {folder}: {error.strerror}") from error
    return written


def _put(path: Path, content: bytes) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
