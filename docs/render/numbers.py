"""Draws panels of single values: big numbers, dials, bars, and rings of shares."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.patches import Rectangle, Wedge

from docs.render.canvas import Box, Canvas
from docs.render.fields import Answers, Field, fields
from docs.render.legends import draw_columns
from docs.render.queries import Json, Window
from docs.render.theme import FAINT, GRID, PANEL, TEXT, colour
from docs.render.units import written

#: The size of a unit, relative to its number.
_UNIT: Final = 0.6
#: Where a dial begins and ends, in degrees, counterclockwise from the right.
_FROM, _TO = 215.0, -35.0


def draw_stat(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws the newest value as large as it fits, with a graph of the past behind it."""
    field = fields(panel, answers)[0]
    course = Box(box.x - 8, box.bottom - box.height * 0.42, box.width + 16, box.height * 0.42 + 8)
    there = ~np.isnan(field.values)
    if panel["options"]["graphMode"] == "area" and there.sum() > 1:
        axes = canvas.axes(course)
        axes.set_axis_off()
        tint = colour("blue") if field.colour == TEXT else field.colour
        low, high = float(np.nanmin(field.values)), float(np.nanmax(field.values))
        axes.set_xlim(window.start, window.end)
        axes.set_ylim(low - (high - low or 1) * 0.15, high + (high - low or 1) * 0.1)
        axes.fill_between(field.times, low - (high - low or 1), field.values, color=tint, alpha=0.16, linewidth=0)
        axes.plot(field.times, field.values, color=tint, linewidth=1, alpha=0.8)
    _value(canvas, box.without(bottom=box.height * 0.36), field, 42)


def _value(canvas: Canvas, box: Box, field: Field, largest: float) -> None:
    """Writes the newest value of a field in the middle of ``box``."""
    number, unit = field.written(field.last)
    size = min(largest, box.height * 0.9)
    while size > 10 and _wide(canvas, number, unit, size) > box.width * 0.94:
        size -= 1
    x, y = box.middle
    x -= _wide(canvas, number, unit, size) / 2
    canvas.write(x, y, number, size, field.colour, bold=True)
    # On the baseline of the number, which is below its middle.
    canvas.write(x + canvas.width_of(number, size, True), y + size * 0.14, unit, size * _UNIT, field.colour, bold=True)


def _wide(canvas: Canvas, number: str, unit: str, size: float) -> float:
    return canvas.width_of(number, size, True) + (canvas.width_of(unit, size * _UNIT, True) if unit else 0)


def draw_gauge(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws the newest value on a dial, with the colours of the thresholds in a thin ring around it."""
    field = fields(panel, answers)[0]
    low, high = field.config["min"], field.config["max"]
    radius = min(box.width / 2, box.height / 1.62)
    axes = canvas.bare(box)
    centre = (box.width / 2, radius)

    def arc(start: float, end: float, outer: float, width: float, tint: str) -> None:
        # From one value to another. The vertical axis points down, so angles grow clockwise.
        first, second = (_FROM + (_TO - _FROM) * (v - low) / (high - low) for v in (start, end))
        axes.add_patch(Wedge(centre, outer, -first, -second, width=width, facecolor=tint, linewidth=0))

    arc(low, high, radius * 0.93, radius * 0.24, GRID)
    if not np.isnan(field.last):
        arc(low, min(max(field.last, low + 1e-6), high), radius * 0.93, radius * 0.24, field.colour)
    steps = field.config["thresholds"]["steps"]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        begin = low if step["value"] is None else step["value"]
        arc(begin, following["value"] if following else high, radius, radius * 0.045, colour(step["color"]))
    middle = Box(box.x + box.width / 2 - radius * 0.6, box.y + radius - radius * 0.34, radius * 1.2, radius * 0.6)
    _value(canvas, middle, field, radius * 0.42)


def draw_bargauge(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws a bar for each series; the largest value fills the width."""
    shown = fields(panel, answers)
    longest = max((field.last for field in shown), default=1.0) or 1.0
    size = 12.0
    names = max(canvas.width_of(field.name, size) for field in shown) + 10
    values = max(canvas.width_of("".join(field.written(field.last)), size, True) for field in shown) + 12
    height = min(box.height / len(shown), 64.0)
    for row, field in zip(box.rows(len(shown), height), shown, strict=True):
        gap = max(2.0, height * 0.14)
        bar = row.without(left=names, right=values, top=gap, bottom=gap)
        axes = canvas.bare(bar)
        axes.add_patch(Rectangle((0, 0), bar.width, bar.height, facecolor="#22252b", linewidth=0))
        length = bar.width * field.last / longest
        axes.add_patch(Rectangle((0, 0), length, bar.height, facecolor=field.colour, alpha=0.45, linewidth=0))
        axes.add_patch(Rectangle((length - 2, 0), 2, bar.height, facecolor=field.colour, linewidth=0))
        canvas.write(row.x, row.middle[1], field.name, size)
        text = "".join(field.written(field.last))
        canvas.write(row.right, row.middle[1], text, size, field.colour, "right", bold=True)


def draw_piechart(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws a ring of shares above a table of them."""
    shown = sorted(fields(panel, answers), key=lambda field: -field.last)
    whole = sum(field.last for field in shown)
    rows = [
        [field.name, "".join(field.written(field.last)), written(field.last / whole, "percentunit", 0)]
        for field in shown
    ]
    tints = [field.colour for field in shown]
    box = draw_columns(canvas, box, ["Name", "Value", "Percent"], rows, tints, max(2, int(box.height * 0.4 / 19)))
    axes = canvas.bare(box)
    radius = min(box.width, box.height) / 2 - 4
    turned = -90.0
    for field, tint in zip(shown, tints, strict=True):
        angle = 360 * field.last / whole
        ring = Wedge((box.width / 2, box.height / 2), radius, turned, turned + angle, width=radius * 0.36)
        ring.set(facecolor=tint, edgecolor=PANEL, linewidth=1.5)
        axes.add_patch(ring)
        turned += angle
    canvas.write(*box.middle, written(whole, panel["fieldConfig"]["defaults"]["unit"]), 13, FAINT, "center")
