"""Draws tables with a row for each combination of labels."""

from __future__ import annotations

from typing import Final

from docs.render.canvas import Box, Canvas
from docs.render.fields import Answers
from docs.render.queries import Json, Window
from docs.render.theme import BORDER, LINK, TEXT
from docs.render.units import written

_ROW: Final = 30.0
_SIZE: Final = 11.5
_MARGIN: Final = 16.0


def draw_table(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws the fields that the panel shows, in its order and with its titles."""
    columns = _columns(panel)
    rows = _rows(panel, answers, list(columns))
    sort = panel["options"]["sortBy"][0]["displayName"]
    rows.sort(key=lambda row: row[list(columns.values()).index(sort)])
    table = [list(columns.values()), *rows]
    widths = [max(canvas.width_of(row[n], _SIZE) for row in table) + _MARGIN for n in range(len(columns))]
    spare = box.width - sum(widths)
    # Room that is left is shared equally; missing room is taken from the widest column.
    widths = [width + spare / len(widths) if spare > 0 else width for width in widths]
    if spare < 0:
        widths[widths.index(max(widths))] += spare
    fitting = int(box.height / _ROW)
    for number, (line, row) in enumerate(zip(box.rows(fitting, _ROW), table, strict=False)):
        x = line.x
        for text, width in zip(row, widths, strict=True):
            shown = canvas.shortened(text, width - _MARGIN / 2, _SIZE)
            canvas.write(x + 4, line.middle[1], shown, _SIZE, TEXT if number else LINK, bold=not number)
            x += width
        canvas.fill(Box(line.x, line.bottom - 1, line.width, 1), BORDER)


def _columns(panel: Json) -> dict[str, str]:
    arranged = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
    names: dict[str, str] = arranged["renameByName"]
    return dict(sorted(names.items(), key=lambda pair: arranged["indexByName"][pair[0]]))


def _rows(panel: Json, answers: Answers, columns: list[str]) -> list[list[str]]:
    """The cells of all rows. Series of different queries with the same labels form one row."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    merged: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for query, answer in answers:
        column = "Value" if len(answers) == 1 else f"Value #{query.ref}"
        for series in answer:
            row = merged.setdefault(tuple(sorted(series.labels.items())), dict(series.labels))
            row[column] = written(float(series.values[-1]), unit)
    return [[row.get(column, "") for column in columns] for row in merged.values()]
