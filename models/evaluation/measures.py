"""Answers -> accuracy, error, calibration and confusion."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.data.arrays import Numbers
from models.evaluation.answers import Answers

#: The normal distribution's 97.5 % quantile.
_Z = 1.959964
#: The number of bins of the calibration, as in Guo et al. 2017.
_BINS = 15


class Share(NamedTuple):
    """The number of right answers among a number of pictures."""

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
        """The 95 % confidence interval of the error in percent (Wilson 1927). It is valid for few pictures too, and if
        none or all of the answers are right."""
        n, share, z2 = self.pictures, 1 - self.right / self.pictures, _Z * _Z
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
        return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def top1(answers: Answers) -> Share:
    """The share of pictures whose first answer is right."""
    return Share(int(answers.right.sum()), len(answers.classes))


def top5(answers: Answers) -> Share:
    """The share of pictures whose class is among the first five answers."""
    return Share(int(answers.among_five.sum()), len(answers.classes))


class Bin(NamedTuple):
    """The pictures whose first answers have about the same confidence."""

    low: float
    high: float
    pictures: int
    confidence: float
    """The mean probability of the first answers; 0 if there are no pictures."""
    accuracy: float
    """The share of right first answers, from 0 to 1; 0 if there are no pictures."""


def calibration(answers: Answers) -> list[Bin]:
    """Sorts pictures by confidence into fifteen bins of equal width, each open below and closed above."""
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
    """The mean distance between confidence and accuracy, in percent (Guo et al. 2017, section 2)."""
    pictures = sum(each.pictures for each in bins)
    return 100 * sum(each.pictures * abs(each.accuracy - each.confidence) for each in bins) / pictures


def confusion(answers: Answers, classes: int) -> Numbers:
    """Numbers of pictures (classes, classes): a row is a right class, a column a first answer."""
    counts = np.bincount(answers.classes * classes + answers.first, minlength=classes * classes)
    return counts.reshape(classes, classes)


class ClassRow(NamedTuple):
    """One class of which there are pictures."""

    number: int
    share: Share
    mistaken_for: int | None
    """The most frequent wrong first answer for its pictures; None if there is no wrong one."""
    mistakes: int
    """The number of pictures with that answer."""


def by_class(matrix: Numbers) -> list[ClassRow]:
    """A confusion matrix -> its classes, without those that have no pictures."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    most = wrong.argmax(1)
    rows = []
    for number in np.flatnonzero(matrix.sum(1)).tolist():
        mistakes = int(wrong[number, most[number]])
        share = Share(int(matrix[number, number]), int(matrix[number].sum()))
        rows.append(ClassRow(number, share, int(most[number]) if mistakes else None, mistakes))
    return rows
