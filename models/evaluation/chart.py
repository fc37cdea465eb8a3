"""A confusion matrix as a chart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from models.checkpoints.labels import Label
from models.data.arrays import Numbers

#: Up to this number of classes, cells have room for numbers and rows for words.
_FEW = 30
_COLOURS = LinearSegmentedColormap.from_list("confusion", ["#ffffff", "#2a7f9e", "#123642"])


def confusion_figure(matrix: Numbers, classes: tuple[Label, ...], title: str) -> Figure:
    """Draws a confusion matrix: one row per class, one column per first answer, colours by the share of the row.
    For few classes, their words and the numbers of pictures are written too."""
    few = len(classes) <= _FEW
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = (2.5 + 0.62 * len(classes), 1.8 + 0.58 * len(classes)) if few else (9.5, 8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    # The square root of shares makes mistakes visible, which are few beside the right answers.
    image = axes.imshow(shares, cmap=_COLOURS, norm=PowerNorm(0.5, 0, 1))
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1 %", "10 %", "25 %", "50 %", "100 %"])
    bar.set_label("share of the class")
    bar.outline.set_visible(False)
    if few:
        words = [label.word for label in classes]
        long = max(map(len, words)) > 3
        axes.set_xticks(range(len(classes)), words, rotation=45 if long else 0, ha="right" if long else "center")
        axes.set_yticks(range(len(classes)), words)
        _write_numbers(axes, matrix, shares)
    axes.tick_params(length=0 if few else 3)
    axes.set_xlabel("first answer" if few else "first answer, class number")
    axes.set_ylabel("class" if few else "class number")
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", fontweight="bold")
    return figure


def _write_numbers(axes: Axes, matrix: Numbers, shares: npt.NDArray[np.float64]) -> None:
    for row, column in np.argwhere(matrix):
        colour = "white" if shares[row, column] > 0.2 else "#333333"
        axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=8, color=colour)
