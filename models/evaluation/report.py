"""An evaluation as a JSON object."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.checkpoints.labels import Label
from models.evaluation.evaluate import Evaluation, Result
from models.evaluation.measures import (
    ClassRow,
    Share,
    by_class,
    calibration,
    confusion,
    expected_calibration_error,
    top1,
    top5,
)


def to_json(evaluation: Evaluation, classes: tuple[Label, ...]) -> dict[str, Any]:
    """All measures of an evaluation: shares and errors in percent, confidences from 0 to 1."""
    return {
        "results": [_result(result, classes) for result in evaluation.results],
        "unreadable": evaluation.unreadable,
        "absent_classes": [classes[number].word for number in evaluation.absent],
    }


def _result(result: Result, classes: tuple[Label, ...]) -> dict[str, Any]:
    matrix, bins = confusion(result.answers, len(classes)), calibration(result.answers)
    return {
        "name": result.name,
        "members": list(result.members),
        "crops": result.crops,
        "pictures": len(result.answers.classes),
        "top1": _share(top1(result.answers)),
        "top5": _share(top5(result.answers)),
        "expected_calibration_error": expected_calibration_error(bins),
        "calibration": [each._asdict() for each in bins],
        "classes": [_class(row, classes) for row in by_class(matrix)],
        # [class, answer, pictures], since a thousand classes have a million cells, nearly all of them 0.
        "confusion": [[*map(int, cell), int(matrix[tuple(cell)])] for cell in np.argwhere(matrix)],
    }


def _share(share: Share) -> dict[str, Any]:
    return {
        "right": share.right,
        "pictures": share.pictures,
        "accuracy": share.accuracy,
        "error": share.error,
        "error_interval": list(share.interval),
    }


def _class(row: ClassRow, classes: tuple[Label, ...]) -> dict[str, Any]:
    mistaken = None
    if row.mistaken_for is not None:
        mistaken = {"index": row.mistaken_for, "label": classes[row.mistaken_for].word, "pictures": row.mistakes}
    return {
        "index": row.number,
        "label": classes[row.number].word,
        "top1": _share(row.share),
        "mistaken_for": mistaken,
    }
