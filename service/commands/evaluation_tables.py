"""An evaluation as tables: all of it in a row a network, then class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from models.checkpoints.labels import Label

if TYPE_CHECKING:
    from models.evaluation.evaluate import Evaluation, Result

#: Classes that are shown; of more, those with the largest error.
_SHOWN = 20


def summary_table(evaluation: Evaluation) -> Table:
    """A row for each network, and of several one for their ensemble."""
    from models.evaluation.measures import calibration, expected_calibration_error, top1, top5

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("pictures", "crops", "top-1, %", "error (95 % interval)", "top-5, %", "error (95 % interval)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("calibration\nerror, %", justify="right")
    for result in evaluation.results:
        cells = []
        for share in (top1(result.answers), top5(result.answers)):
            low, high = share.interval
            cells += [f"{share.accuracy:.2f}", f"{share.error:.2f} ({low:.2f} to {high:.2f})"]
        calibrated = expected_calibration_error(calibration(result.answers))
        counts = (f"{len(result.answers.classes):,}", f"{result.crops:,}")
        table.add_row(f"[bold]{escape(result.name)}[/]", *counts, *cells, f"{calibrated:.2f}")
    return table


def class_table(result: Result, classes: tuple[Label, ...]) -> Table:
    """What one network, or the ensemble, said of the pictures of each class."""
    from models.evaluation.measures import by_class, confusion

    rows = by_class(confusion(result.answers, len(classes)))
    name = "class"
    if len(rows) > _SHOWN:
        rows = sorted(rows, key=lambda row: -row.share.error)[:_SHOWN]
        name = f"class, the {_SHOWN} worst"
    table = Table(box=None, pad_edge=False)
    table.add_column(name)
    table.add_column("pictures", justify="right")
    table.add_column("top-1, %", justify="right")
    table.add_column("most often mistaken for")
    for row in rows:
        mistaken = "" if row.mistaken_for is None else f"{escape(classes[row.mistaken_for].word)} ({row.mistakes:,})"
        numbers = (f"{row.share.pictures:,}", f"{row.share.accuracy:.2f}")
        table.add_row(escape(classes[row.number].word), *numbers, mistaken)
    return table
