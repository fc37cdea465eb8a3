"""Draws a dashboard as a picture."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from docs.render.canvas import Box, Canvas
from docs.render.fields import Answers, ask, is_empty
from docs.render.numbers import draw_bargauge, draw_gauge, draw_piechart, draw_stat
from docs.render.plots import draw_heatmap, draw_statetimeline, draw_timeseries
from docs.render.prometheus import Prometheus
from docs.render.queries import Json, Window, panels
from docs.render.tables import draw_table
from docs.render.theme import BORDER, FAINT, LINK, PANEL, TEXT

#: Draws the data of a panel into a box.
Draw = Callable[[Canvas, Box, Json, Answers, Window], None]
DRAW: Final[dict[str, Draw]] = {
    "bargauge": draw_bargauge,
    "gauge": draw_gauge,
    "heatmap": draw_heatmap,
    "piechart": draw_piechart,
    "stat": draw_stat,
    "state-timeline": draw_statetimeline,
    "table": draw_table,
    "timeseries": draw_timeseries,
}
_WIDTH: Final = 1440
_EDGE: Final = 16
_GAP: Final = 8
_HEAD: Final = 84
#: Height of a row of Grafana's grid in pixels, including the gap below it.
_ROW: Final = 38
_COLUMN: Final = (_WIDTH - 2 * _EDGE + _GAP) / 24


def draw(dashboard: Json, prometheus: Prometheus, window: Window, path: Path) -> list[str]:
    """Draws ``dashboard`` to a PNG file.

    Returns:
        The titles of panels that have no data and no text for that case.

    Raises:
        PrometheusError: Prometheus does not answer, or rejects a query.
        OSError: the file cannot be written.
    """
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    canvas = Canvas(_WIDTH, _HEAD + rows * _ROW + _EDGE - _GAP)
    _head(canvas, dashboard, window)
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            box = _place(panel)
            canvas.write(box.x + 2, box.middle[1] + 1, f"▾  {panel['title']}", 14, bold=True)
    missing = [panel["title"] for panel in panels(dashboard) if not _panel(canvas, panel, prometheus, window)]
    _save(canvas, path)
    return missing


def _place(panel: Json) -> Box:
    place = panel["gridPos"]
    return Box(
        _EDGE + place["x"] * _COLUMN,
        _HEAD + place["y"] * _ROW,
        place["w"] * _COLUMN - _GAP,
        place["h"] * _ROW - _GAP,
    )


def _panel(canvas: Canvas, panel: Json, prometheus: Prometheus, window: Window) -> bool:
    """Draws a panel. Returns whether it has data, or a text for the case that it has none."""
    box = _place(panel)
    canvas.fill(box, PANEL, BORDER, radius=3)
    canvas.write(box.x + 10, box.y + 17, canvas.shortened(panel["title"], box.width - 20, 13), 13)
    answers = ask(prometheus, panel, window)
    inside = box.without(left=10, top=34, right=10, bottom=8)
    if not is_empty(answers):
        DRAW[panel["type"]](canvas, inside, panel, answers, window)
        return True
    said = panel["fieldConfig"]["defaults"].get("noValue")
    canvas.write(*inside.middle, said or "No data", 13, FAINT, "center")
    return said is not None


def _head(canvas: Canvas, dashboard: Json, window: Window) -> None:
    """Draws the title, time range, variables and links above the panels, as Grafana does."""
    canvas.write(_EDGE, 26, dashboard["title"], 19, bold=True)
    first, last = (datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S") for moment in (window.start, window.end))
    day = datetime.fromtimestamp(window.end, UTC).strftime("%Y-%m-%d")
    canvas.write(_WIDTH - _EDGE, 26, f"{day}  {first} – {last} UTC", 13, at="right")
    x = float(_EDGE)
    for variable in dashboard["templating"]["list"]:
        value = "Prometheus" if variable["type"] == "datasource" else "All"
        label, width = variable["label"], canvas.width_of(variable["label"]) + canvas.width_of(value) + 40
        canvas.fill(Box(x, 46, width, 26), PANEL, BORDER, radius=2)
        canvas.write(x + 10, 59, label, colour=LINK)
        canvas.write(x + width - 10, 59, value, colour=TEXT, at="right")
        x += width + _GAP
    x = float(_WIDTH - _EDGE)
    for link in reversed(dashboard["links"]):
        canvas.write(x, 59, link["title"], colour=LINK, at="right")
        x -= canvas.width_of(link["title"]) + 24


def _save(canvas: Canvas, path: Path) -> None:
    drawn = BytesIO()
    canvas.figure.savefig(drawn, format="png")
    unfinished = path.with_suffix(".unfinished")
    with Image.open(drawn) as picture:
        # With a palette the file has a third of the size. Without k-means, colours of small areas would get lost.
        few = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
        few.save(unfinished, "PNG", optimize=True)
    unfinished.replace(path)
