"""Draws panels with a time axis."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from docs.render.canvas import Box, Canvas
from docs.render.fields import Answers, Field, fields
from docs.render.legends import draw_legend, draw_names
from docs.render.prometheus import Numbers
from docs.render.queries import Json, Window
from docs.render.theme import FAINT, GRID, PANEL, TEXT, colour
from docs.render.units import written

_SIZE: Final = 11.0
_TIME_STEPS: Final = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)


def draw_timeseries(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws lines, areas and bars."""
    shown = fields(panel, answers)
    box = draw_legend(canvas, box, shown, panel["options"]["legend"])
    piles: Numbers | None = None
    heights = []
    for field in shown:
        if field.custom("stacking", {}).get("mode", "none") == "normal":
            below = piles if piles is not None else np.zeros(len(field.values))
            piles = below + np.nan_to_num(field.values)
            heights.append((field, below, piles))
        else:
            heights.append((field, np.zeros(len(field.values)), field.values))
    low, high = _limits(panel, np.concatenate([top for _, _, top in heights]))
    axes = _axes(canvas, box, panel["fieldConfig"]["defaults"], window, low, high)
    # From the top of the stack down, so that no area covers the line below it.
    for field, below, top in reversed(heights):
        _draw(axes, field, below, top)
    thresholds = panel["fieldConfig"]["defaults"].get("thresholds")
    if thresholds and shown[0].custom("thresholdsStyle"):
        for step in thresholds["steps"][1:]:
            axes.axhline(step["value"], color=colour(step["color"]), linewidth=1.1, dashes=(6, 4), zorder=5)


def _draw(axes: Any, field: Field, below: Numbers, top: Numbers) -> None:
    tint, opacity = field.colour, field.custom("fillOpacity", 0) / 100
    if field.custom("drawStyle") == "bars":
        step = field.times[1] - field.times[0] if len(field.times) > 1 else 1
        axes.bar(field.times, top - below, step * 0.9, below, color=tint, alpha=opacity, linewidth=0)
        return
    stepped = field.custom("lineInterpolation") == "stepAfter"
    axes.fill_between(field.times, below, top, color=tint, alpha=opacity, linewidth=0, step="post" if stepped else None)
    style: Json = {"drawstyle": "steps-post" if stepped else "default"}
    if field.custom("lineStyle", {}).get("fill") == "dash":
        style["dashes"] = (6, 4)
    axes.plot(field.times, top, color=tint, linewidth=field.custom("lineWidth", 1) * 0.75, **style)


def _limits(panel: Json, values: Numbers) -> tuple[float, float]:
    """The limits of the vertical axis. Soft limits give way to values beyond them, hard ones do not."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    there = values[np.isfinite(values)]
    lowest = [*there, custom["axisSoftMin"]] if "axisSoftMin" in custom else [*there]
    highest = [*there, custom["axisSoftMax"]] if "axisSoftMax" in custom else [*there]
    low = defaults.get("min", min(lowest, default=0.0))
    high = defaults.get("max", max(highest, default=1.0))
    return float(low), float(high if high > low else low + 1)


def _axes(canvas: Canvas, box: Box, defaults: Json, window: Window, low: float, high: float) -> Any:
    """Axes with Grafana's grid, times at the bottom, and values with units on the left."""
    unit = defaults["unit"]
    # Round numbers of bytes are multiples of powers of 1024.
    size = 1024.0 ** int(np.log(high) / np.log(1024)) if unit == "bytes" and high >= 1 else 1.0
    top = high if "max" in defaults else low + (high - low) * 1.06
    logarithmic = defaults.get("custom", {}).get("scaleDistribution", {}).get("type") == "log"
    if logarithmic:
        low, top = (10.0**limit for limit in (np.floor(np.log10(low)), np.ceil(np.log10(high))))
    round_numbers = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low / size, top / size)
    ticks = [tick for tick in np.asarray(round_numbers) * size if low - 1e-9 <= tick <= top * (1 + 1e-9)]
    if logarithmic:
        ticks = [10.0**power for power in range(round(np.log10(low)), round(np.log10(top)) + 1)]
    if defaults.get("decimals") == 0:
        ticks = [tick for tick in ticks if tick == round(tick)]
    labels = [written(tick, unit) for tick in ticks]
    left = max(canvas.width_of(label, _SIZE) for label in labels) + 8
    axes = _timed(canvas, box.without(left=left, bottom=20), window)
    if logarithmic:
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.set_ylim(low, top)
    axes.set_yticks(ticks, labels, fontsize=_SIZE * 0.72, color=FAINT)
    axes.grid(True, color=GRID, linewidth=0.8)
    return axes


def _timed(canvas: Canvas, box: Box, window: Window) -> Any:
    """Axes whose horizontal axis is the time in UTC."""
    axes = canvas.axes(box)
    axes.set_facecolor(PANEL)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    fitting = [step for step in _TIME_STEPS if window.seconds / step <= max(2, box.width / 75)]
    step = fitting[0] if fitting else window.seconds
    moments = np.arange(np.ceil(window.start / step) * step, window.end - window.seconds * 18 / box.width, step)
    form = "%H:%M:%S" if step < 60 else "%H:%M"
    labels = [datetime.fromtimestamp(moment, UTC).strftime(form) for moment in moments]
    axes.set_xlim(window.start, window.end)
    axes.set_xticks(moments, labels, fontsize=_SIZE * 0.72, color=FAINT)
    return axes


def draw_heatmap(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws the buckets of a histogram over time: a row for each, which reaches down to the row below."""
    series = sorted((s for _, answer in answers for s in answer), key=lambda s: float(s.labels["le"]))
    limits = [s.labels["le"].removesuffix(".0").replace("+Inf", "∞") for s in series]
    reached = np.nan_to_num(np.array([s.values for s in series]))
    counts = np.diff(reached, axis=0, prepend=0).clip(0)
    most = float(counts.max()) or 1.0
    options = panel["options"]["color"]
    shades = mpl.colormaps[options["scheme"].lower()]
    _scale(canvas, Box(box.x + 30, box.bottom - 16, 130, 8), shades, written(most, "short"))
    axes = _timed(canvas, box.without(left=30, bottom=44), window)
    times = series[0].times
    step = times[1] - times[0] if len(times) > 1 else 1
    strength = np.where(counts > panel["options"]["filterValues"]["le"], (counts / most) ** options["exponent"], np.nan)
    edges = np.append(times - step, times[-1])
    axes.pcolormesh(
        edges, np.arange(len(limits) + 1), strength, cmap=shades, vmin=0, vmax=1, edgecolors=PANEL, linewidth=1
    )
    axes.set_ylim(0, len(limits))
    axes.set_yticks(np.arange(len(limits)) + 1.0, limits, fontsize=_SIZE * 0.72, color=FAINT)
    axes.grid(False)


def _scale(canvas: Canvas, box: Box, shades: Any, most: str) -> None:
    axes = canvas.axes(box)
    axes.imshow([np.linspace(0, 1, 128)], cmap=shades, aspect="auto")
    axes.set_axis_off()
    canvas.write(box.x - 6, box.middle[1], "0", _SIZE, FAINT, "right")
    canvas.write(box.right + 6, box.middle[1], most, _SIZE, FAINT)


def draw_statetimeline(canvas: Canvas, box: Box, panel: Json, answers: Answers, window: Window) -> None:
    """Draws a row for each series, with a colour and a word for each period of one value."""
    shown = fields(panel, answers)
    words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    box = draw_names(canvas, box, [(word["text"], "", colour(word["color"])) for word in words.values()])
    left = max(canvas.width_of(field.name, _SIZE) for field in shown) + 8
    axes = _timed(canvas, box.without(left=left, bottom=20), window)
    height = panel["options"]["rowHeight"]
    for row, field in enumerate(shown):
        changes = [n for n, value in enumerate(field.values) if not n or value != field.values[n - 1]]
        for start, stop in zip(changes, [*changes[1:], len(field.values) - 1], strict=True):
            if np.isnan(field.values[start]):
                continue
            word = words[f"{field.values[start]:g}"]
            begin, end = field.times[start], field.times[stop]
            axes.barh(row, end - begin, height, begin, color=colour(word["color"]), linewidth=0)
            if (end - begin) / window.seconds * box.width > canvas.width_of(word["text"], _SIZE) + 12:
                axes.text((begin + end) / 2, row, word["text"], fontsize=8, color=TEXT, ha="center", va="center")
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [field.name for field in shown], fontsize=_SIZE * 0.72, color=FAINT)
    axes.grid(False)
