"""The progress of a training run, one row an epoch: a CSV file and a chart."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from matplotlib.figure import Figure

from models.analysis.plots import save
from models.files import atomic_write


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training pictures. Accuracies are in percent."""

    number: int
    rate: float
    """Learning rate at its end."""
    loss: float
    """Mean over the epoch, auxiliary heads included."""
    training_top1: float
    """Measured during the epoch, on distorted pictures and with dropout."""
    test_top1: float
    """On a part of the test pictures if there are many."""
    test_top5: float


def write_curves(path: Path, epochs: Sequence[Epoch], title: str) -> None:
    """Writes ``path`` (CSV) and a chart of the same name (PNG), each whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    with atomic_write(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)
    save(curves_figure(epochs, title), path.with_suffix(".png"))


def curves_figure(epochs: Sequence[Epoch], title: str) -> Figure:
    """Loss on the left, accuracies on the right, over epochs."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in epochs]
    left.plot(numbers, [epoch.loss for epoch in epochs], marker="o", color="#2a7f9e")
    left.set_ylabel("training loss")
    for name, label, colour in (
        ("training_top1", "top-1, training", "#9aa5ab"),
        ("test_top1", "top-1, test", "#2a7f9e"),
        ("test_top5", "top-5, test", "#d1702c"),
    ):
        right.plot(numbers, [getattr(epoch, name) for epoch in epochs], marker="o", color=colour, label=label)
    right.set_ylabel("accuracy, %")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure
