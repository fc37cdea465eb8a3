"""Measures, compared with plain counting."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.evaluation.answers import Answers
from models.evaluation.measures import (
    Share,
    by_class,
    calibration,
    confusion,
    expected_calibration_error,
)

CLASSES = 7


@st.composite
def some_answers(draw: st.DrawFn) -> Answers:
    count = draw(st.integers(1, 60))
    numbers = arrays.arrays(np.int64, count, elements=st.integers(0, CLASSES - 1))
    confidence = arrays.arrays(np.float32, count, elements=st.floats(0, 1, width=32))
    return Answers(draw(numbers), draw(numbers), draw(confidence), draw(arrays.arrays(np.bool_, count)))


def test_shares_in_percent() -> None:
    share = Share(3, 4)
    assert (share.accuracy, share.error) == (75, 25)
    low, high = Share(10, 10).interval
    assert (low, high) == pytest.approx((0, 27.753), abs=0.001)
    assert Share(0, 10).interval == pytest.approx((100 - 27.753, 100), abs=0.001)


@given(pictures=st.integers(1, 10_000), share=st.floats(0, 1))
def test_the_ends_of_the_interval_are_two_deviations_away(pictures: int, share: float) -> None:
    """Wilson's definition of the interval; the code solves its quadratic equation."""
    measured = Share(round(pictures * share), pictures)
    error = measured.error / 100
    low, high = (end / 100 for end in measured.interval)
    assert 0 <= low <= error + 1e-9
    assert error - 1e-9 <= high <= 1
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            deviations = abs(error - end) / math.sqrt(end * (1 - end) / pictures)
            assert deviations == pytest.approx(1.96, abs=1e-3)


@given(some_answers())
def test_calibration_by_hand(answers: Answers) -> None:
    groups: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in zip(answers.confidence.tolist(), answers.right.tolist(), strict=True):
        number = next(i for i in range(15) if confidence <= np.linspace(0, 1, 16)[i + 1])
        groups.setdefault(number, []).append((confidence, right))
    expected = 0.0
    for group in groups.values():
        confidence = sum(each for each, _ in group) / len(group)
        accuracy = sum(right for _, right in group) / len(group)
        expected += len(group) / len(answers.classes) * abs(accuracy - confidence)
    bins = calibration(answers)
    assert [each.pictures for each in bins] == [len(groups.get(i, [])) for i in range(15)]
    assert expected_calibration_error(bins) == pytest.approx(100 * expected, abs=1e-6)


def test_sure_and_right_answers_are_calibrated() -> None:
    zeros, sure = np.zeros(4, np.int64), np.ones(4, np.float32)
    assert expected_calibration_error(calibration(Answers(zeros, zeros, sure, sure > 0))) == 0
    assert expected_calibration_error(calibration(Answers(zeros, zeros + 1, sure, sure > 0))) == 100
    half = np.array([0, 0, 1, 1])
    assert expected_calibration_error(calibration(Answers(zeros, half, sure / 2, sure > 0))) == pytest.approx(0)


@given(some_answers())
def test_confusion_by_hand(answers: Answers) -> None:
    matrix = confusion(answers, CLASSES)
    pairs = Counter(zip(answers.classes.tolist(), answers.first.tolist(), strict=True))
    assert {(i, j): n for (i, j), n in np.ndenumerate(matrix) if n} == pairs
    rows = by_class(matrix)
    assert [row.number for row in rows] == sorted(set(answers.classes.tolist()))
    for row in rows:
        wrong = {answer: n for (true, answer), n in pairs.items() if true == row.number != answer}
        assert row.share == Share(pairs[row.number, row.number], sum(wrong.values()) + pairs[row.number, row.number])
        assert row.mistakes == max(wrong.values(), default=0)
        assert row.mistaken_for is None if not wrong else wrong[row.mistaken_for or 0] == row.mistakes
