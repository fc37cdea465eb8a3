"""Charts of layers, of networks side by side, and of the ImageNet challenge, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.analysis.description import Compared, Description
from models.analysis.history import ILSVRC
from models.analysis.layer_table import Row
from models.files import atomic_write

_MIB = 2**20
_ACTIVATIONS, _PARAMETERS, _DEEP, _SHALLOW = "#2a7f9e", "#d1702c", "#2a7f9e", "#9aa5ab"


def layers_figure(description: Description) -> Figure:
    """Draws a bar for each row of the layer table: activations above, parameters below, in MiB of float32.

    For VGG, most activations are in the first convolutions and most parameters in the first linear layer.
    """
    rows = [row for row in description.rows if row.params or row.activations]
    figure = Figure(figsize=(max(8.0, 0.42 * len(rows) + 2), 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    needs = description.needs["inference"]
    for axes, values, total, colour, what in (
        (above, [row.activations for row in rows], needs.activations, _ACTIVATIONS, "activations, one picture"),
        (below, [row.params for row in rows], needs.params, _PARAMETERS, "parameters"),
    ):
        sizes = [4 * value / _MIB for value in values]
        axes.bar(range(len(rows)), sizes, color=colour, width=0.75)
        axes.set_ylabel("MiB")
        axes.set_title(f"{what}: {4 * total / _MIB:,.1f} MiB", loc="left", fontsize=10)
        _plain(axes)
        highest = max(sizes)
        worth_a_number = max(sorted(sizes)[-3], highest / 10)
        for i, size in enumerate(sizes):
            if size >= worth_a_number:
                axes.annotate(f"{size:,.1f}", (i, size), ha="center", va="bottom", fontsize=8)
        axes.set_ylim(0, highest * 1.12)
    below.set_xticks(range(len(rows)), [_tick(row) for row in rows], rotation=60, ha="right", fontsize=8)
    variant = description.checkpoint.variant
    figure.suptitle(
        f"{variant.name} ({variant.year}): {needs.bytes() / _MIB:,.1f} MiB for one picture in float32",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    return figure


def comparison_figure(rows: Sequence[Compared]) -> Figure:
    """Draws top-1 accuracy over analytic memory; the area of a point shows multiply-adds. Networks whose accuracy on
    ImageNet is not known are left out."""
    shown = [row for row in rows if row.top1 is not None and row.labels == "imagenet1k"]
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    xs = [row.analytic_bytes / 1e6 for row in shown]
    ys = [row.top1 or 0.0 for row in shown]
    largest = max((row.multiply_adds for row in shown), default=1)
    areas = [30 + 900 * row.multiply_adds / largest for row in shown]
    axes.scatter(xs, ys, s=areas, color=_ACTIVATIONS, alpha=0.55, linewidths=0)
    axes.set_xscale("log")
    heights = list(ys)
    for cluster in _clusters(xs, ys):
        heights += _label(axes, [(shown[i].name, xs[i], ys[i]) for i in cluster])
    if shown:
        # matplotlib's own limits leave no room for the names.
        left, right = min(xs) / 1.9, max(xs) * 1.25
        space = max(0.09 * (max(heights) - min(heights)), 1.0)
        axes.set_xlim(left, right)
        axes.set_ylim(min(heights) - space, max(heights) + space)
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 600, 800, 1000) if left < tick < right]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("analytic memory of one picture, MB (float32, logarithmic)")
    axes.set_ylabel("ImageNet top-1 accuracy, %")
    axes.set_title("Accuracy over memory; area: multiply-adds", loc="left", fontweight="bold")
    _plain(axes)
    axes.grid(alpha=0.3)
    return figure


def _clusters(xs: Sequence[float], ys: Sequence[float]) -> list[list[int]]:
    """Groups points whose names would overlap: lists of indices, lowest accuracy first."""
    left, found = sorted(range(len(xs)), key=ys.__getitem__), []
    while left:
        cluster = [left.pop(0)]
        for i in list(left):
            if any(abs(xs[i] / xs[j] - 1) < 0.3 and abs(ys[i] - ys[j]) < 2.5 for j in cluster):
                cluster.append(i)
                left.remove(i)
        found.append(cluster)
    return found


def _label(axes: Axes, points: Sequence[tuple[str, float, float]]) -> list[float]:
    """Writes the names of a cluster: one above its point, two above and below, more in a column to the left.

    Returns:
        The heights of the column's names.
    """
    if len(points) > 2:
        edge, middle = min(x for _, x, _ in points) / 1.35, sum(y for _, _, y in points) / len(points)
        line = {"arrowstyle": "-", "color": "#9aa5ab", "linewidth": 0.7, "shrinkA": 2, "shrinkB": 0}
        column = [middle + 1.15 * (i - (len(points) - 1) / 2) for i in range(len(points))]
        for (name, x, y), height in zip(points, column, strict=True):
            axes.annotate(name, (x, y), (edge, height), ha="right", va="center", fontsize=9, arrowprops=line)
        return column
    for i, (name, x, y) in enumerate(points):
        below = len(points) == 2 and i == 0
        side = "top" if below else "bottom"
        axes.annotate(
            name, (x, y), (0, -9 if below else 9), textcoords="offset points", ha="center", va=side, fontsize=9
        )
    return []


def history_figure() -> Figure:
    """Draws ILSVRC's top-5 error by year."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    colours = [_DEEP if entry.variant else _SHALLOW for entry in ILSVRC]
    bars = axes.bar(range(len(ILSVRC)), [entry.top5_error for entry in ILSVRC], color=colours, width=0.7)
    axes.bar_label(bars, [f"{entry.top5_error:.1f}" for entry in ILSVRC], padding=2)
    axes.set_xticks(range(len(ILSVRC)), [f"{entry.name}\n{entry.year}" for entry in ILSVRC])
    axes.set_ylabel("top-5 error, %")
    axes.set_title("ImageNet challenge, classification; coloured: networks", loc="left", fontweight="bold")
    _plain(axes)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=130)


def _tick(row: Row) -> str:
    """A layer's name, or its kind and size if the name is only a number ("features.0")."""
    if "." not in row.name or row.type == "inception":
        return row.name
    kind = {"convolution": "conv", "linear": "fc"}.get(row.type, row.type)
    return " ".join(filter(None, [kind, row.patch.split("/")[0], str(row.output[0])]))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
