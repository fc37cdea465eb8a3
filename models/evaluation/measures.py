"""Answers -> how good they are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.data.arrays import Numbers
from models.evaluation.answers import Answers

#: The normal distribution's 97.5 % quantile.
_Z = 1.959964
#: Of the calibration, as in Guo et al. 2017.
_BINS = 15


class Share(NamedTuple):
    """How many of the pictures were answered rightly."""

    right: int
    pictures: int

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100 * self.right / self.pictures

    @property
    def error(self) -> float:
        """Percent."""
        return 100 * (self.pictures - self.right) / self.pictures

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the error in percent (Wilson 1927), which holds for few pictures, and for
        none or all of them right."""
        n, share, z2 = self.pictures, 1 - self.right / self.pictures, _Z * _Z
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
        return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def top1(answers: Answers) -> Share:
    """By the first answer."""
    return Share(int(answers.right.sum()), len(answers.classes))


def top5(answers: Answers) -> Share:
    """By the first five."""
    return Share(int(answers.among_five.sum()), len(answers.classes))


class Bin(NamedTuple):
    """The pictures that were answered with about the same confidence."""

    low: float
    high: float
    pictures: int
    confidence: float
    """Mean probability of the first answer; 0 where there are no pictures."""
    accuracy: float
    """Share of right first answers, 0 to 1."""


def calibration(answers: Answers) -> list[Bin]:
    """Fifteen bins of equal width over confidence, each open below and closed above."""
    edges = np.linspace(0, 1, _BINS + 1)
    places = np.clip(np.searchsorted(edges, answers.confidence, side="left") - 1, 0, _BINS - 1)
    found = []
    for i in range(_BINS):
        inside = places == i
        count = int(inside.sum())
        confidence = float(answers.confidence[inside].mean(dtype=np.float64)) if count else 0.0
        accuracy = float(answers.right[inside].mean()) if count else 0.0
        found.append(Bin(float(edges[i]), float(edges[i + 1]), count, confidence, accuracy))
    return found


def expected_calibration_error(bins: list[Bin]) -> float:
    """How far confidence is from accuracy on average, in percent (Guo et al. 2017, section 2)."""
    pictures = sum(each.pictures for each in bins)
    return 100 * sum(each.pictures * abs(each.accuracy - each.confidence) for each in bins) / pictures


def confusion(answers: Answers, classes: int) -> Numbers:
    """(classes, classes): pictures of the class of the row, first answered with that of the column."""
    counts = np.bincount(answers.classes * classes + answers.first, minlength=classes * classes)
    return counts.reshape(classes, classes)


class ClassRow(NamedTuple):
    """One class that there are pictures of."""

    number: int
    share: Share
    mistaken_for: int | None
    """The wrong class that its pictures are most often answered with; None if they never are."""
    mistakes: int
    """How often."""


def by_class(matrix: Numbers) -> list[ClassRow]:
    """A confusion matrix -> its classes, those without pictures left out."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    most = wrong.argmax(1)
    rows = []
    for number in np.flatnonzero(matrix.sum(1)).tolist():
        mistakes = int(wrong[number, most[number]])
        share = Share(int(matrix[number, number]), int(matrix[number].sum()))
        rows.append(ClassRow(number, share, int(most[number]) if mistakes else None, mistakes))
    return rows
