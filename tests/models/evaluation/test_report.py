"""The JSON report of an evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.checkpoints.labels import labels
from models.evaluation.answers import Answers
from models.evaluation.evaluate import Evaluation, Result
from models.evaluation.report import to_json

#: Classes of CIFAR-10: 0 is airplane, 3 cat, 5 dog, 9 truck.
ANSWERS = Answers(
    classes=np.array([0, 3, 3, 3, 5, 5, 5, 5]),
    first=np.array([0, 5, 5, 3, 5, 5, 3, 9]),
    confidence=np.array([0.99, 0.5, 0.5, 0.5, 0.9, 0.9, 0.3, 0.2], np.float32),
    among_five=np.array([True, True, False, True, True, True, True, False]),
)
EVALUATION = Evaluation([Result("one", ("one",), 10, ANSWERS)], ["test/cat/9.png: truncated"], [1, 9])


def test_the_report_has_everything_in_numbers_that_agree() -> None:
    """Counted by hand: 4 of 8 first answers are right, and 6 of 8 are among the first five."""
    document = to_json(EVALUATION, labels("cifar10"))
    assert json.loads(json.dumps(document)) == document
    assert document["unreadable"] == ["test/cat/9.png: truncated"]
    assert document["absent_classes"] == ["automobile", "truck"]
    (row,) = document["results"]
    assert (row["name"], row["members"], row["crops"], row["pictures"]) == ("one", ["one"], 10, 8)
    for name, right in (("top1", 4), ("top5", 6)):
        share = row[name]
        assert (share["right"], share["pictures"]) == (right, 8)
        assert (share["accuracy"], share["error"]) == (100 * right / 8, 100 * (8 - right) / 8)
        assert share["error_interval"][0] < share["error"] < share["error_interval"][1]
    assert row["confusion"] == [[0, 0, 1], [3, 3, 1], [3, 5, 2], [5, 3, 1], [5, 5, 2], [5, 9, 1]]
    assert [each["pictures"] for each in row["calibration"] if each["pictures"]] == [1, 1, 3, 2, 1]
    # The distance of each picture's bin: 0.2 and 0.3 with nothing right, 0.5 with a third, 0.9 and 0.99 with all.
    distances = [0.2, 0.3, *[0.5 - 1 / 3] * 3, *[0.1] * 2, 0.01]
    assert row["expected_calibration_error"] == pytest.approx(100 * sum(distances) / 8, abs=1e-4)


def test_the_report_names_the_most_frequent_mistake_of_each_class() -> None:
    (row,) = to_json(EVALUATION, labels("cifar10"))["results"]
    airplane, cat, dog = row["classes"]
    assert (airplane["index"], airplane["label"], airplane["mistaken_for"]) == (0, "airplane", None)
    assert [each["index"] for each in (cat, dog)] == [3, 5]
    assert (cat["top1"]["right"], cat["top1"]["pictures"]) == (1, 3)
    assert cat["mistaken_for"] == {"index": 5, "label": "dog", "pictures": 2}
    # Of two mistakes that are equally frequent, the first class.
    assert dog["mistaken_for"] == {"index": 3, "label": "cat", "pictures": 1}
