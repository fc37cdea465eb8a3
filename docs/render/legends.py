"""Draws the legend below a panel, as a list or as a table."""

from __future__ import annotations

from typing import Final

from docs.render.canvas import Box, Canvas
from docs.render.fields import CALCULATIONS, Field, calculate
from docs.render.queries import Json
from docs.render.theme import FAINT, LINK, TEXT

_LINE: Final = 19.0
_SIZE: Final = 11.0
_MARK: Final = 18.0
_GAP: Final = 14.0
_COLUMN: Final = 74.0
#: The largest share of a panel that a legend may take; in Grafana one can scroll.
_MOST: Final = 0.42


def draw_legend(canvas: Canvas, box: Box, fields: list[Field], options: Json) -> Box:
    """Draws the legend at the lower end of ``box`` and returns the rest of the box, which is for the data."""
    if not options.get("showLegend", True) or not fields:
        return box
    calculations = options.get("calcs", [])
    most = max(1, int(box.height * _MOST / _LINE))
    if options["displayMode"] == "table":
        return _table(canvas, box, fields, calculations, most)
    return _list(canvas, box, fields, calculations, most)


def draw_names(canvas: Canvas, box: Box, names: list[tuple[str, str, str]], most: int = 9) -> Box:
    """Draws names, given as (name, value, colour), in as many lines as they need, and returns the rest of ``box``."""
    lines: list[list[tuple[float, tuple[str, str, str]]]] = [[]]
    x = 0.0
    for name, value, colour in names:
        width = _MARK + canvas.width_of(name, _SIZE) + (6 + canvas.width_of(value, _SIZE) if value else 0)
        if x and x + width > box.width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, (name, value, colour)))
        x += width + _GAP
    lines = lines[:most]
    for number, line in enumerate(lines):
        y = box.bottom - (len(lines) - number - 0.5) * _LINE
        for x, (name, value, colour) in line:
            canvas.fill(Box(box.x + x, y - 2, 13, 4), colour, radius=2)
            canvas.write(box.x + x + _MARK, y, name, _SIZE)
            if value:
                canvas.write(box.x + x + _MARK + canvas.width_of(name, _SIZE) + 6, y, value, _SIZE, FAINT)
    return box.without(bottom=len(lines) * _LINE + 6)


def _list(canvas: Canvas, box: Box, fields: list[Field], calculations: list[str], most: int) -> Box:
    names = []
    for field in fields:
        computed = (
            f"{CALCULATIONS[name]}: {''.join(field.written(calculate(name, field.values)))}" for name in calculations
        )
        names.append((field.name, "  ".join(computed), field.colour))
    return draw_names(canvas, box, names, most)


def _table(canvas: Canvas, box: Box, fields: list[Field], calculations: list[str], most: int) -> Box:
    rows = [
        [field.name, *("".join(field.written(calculate(name, field.values))) for name in calculations)]
        for field in fields
    ]
    titles = ["Name", *(CALCULATIONS[name] for name in calculations)]
    return draw_columns(canvas, box, titles, rows, [field.colour for field in fields], most)


def draw_columns(
    canvas: Canvas, box: Box, titles: list[str], rows: list[list[str]], colours: list[str], most: int
) -> Box:
    """Draws a table with a colour before each row at the lower end of ``box``, and returns the rest of the box."""
    rows = rows[: max(1, most - 1)]
    lines = list(box.without(top=box.height - (len(rows) + 1) * _LINE).rows(len(rows) + 1, _LINE))
    for line, texts, colour in zip(lines, [titles, *rows], ["none", *colours], strict=False):
        y = line.middle[1]
        canvas.fill(Box(line.x, y - 2, 13, 4), colour, radius=2)
        size = _SIZE - 0.5 if line is lines[0] else _SIZE
        tint = LINK if line is lines[0] else TEXT
        room = line.width - _MARK - _COLUMN * (len(texts) - 1)
        canvas.write(line.x + _MARK, y, canvas.shortened(texts[0], room, size), size, tint)
        for number, text in enumerate(reversed(texts[1:])):
            canvas.write(line.right - number * _COLUMN, y, text, size, tint, "right")
    return box.without(bottom=len(lines) * _LINE + 6)
