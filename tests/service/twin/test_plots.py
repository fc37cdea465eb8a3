"""The plots show the shares of the report."""

from __future__ import annotations

import pytest

from loadreport.plots import svg
from service.twin.plots import classes
from service.twin.report import report
from tests.service.twin.test_report import outcome, refused, sent


def test_bars_are_shares_of_what_was_offered_and_of_the_answers() -> None:
    made = report(outcome(sent(), sent(model="googlenet"), sent(reason="deadline-missed", top1=0.0), refused(1.0)))
    left, right = classes(made).axes
    widths = [[bar.get_width() for bar in container] for container in left.containers]
    # Of each: hasty, patient (nobody came), all.
    assert widths == [[0.5, 0, 0.5], [0.25, 0, 0.25], [0.25, 0, 0.25]]
    assert [container.get_label() for container in right.containers] == ["alexnet", "googlenet"]
    assert [bar.get_width() for bar in right.containers[0]] == pytest.approx([0.5, 0, 0.5])
    assert [label.get_text() for label in left.get_yticklabels()] == ["hasty", "patient", "all"]


def test_the_same_report_gives_the_same_file() -> None:
    made = report(outcome(sent()))
    assert svg(classes(made)) == svg(classes(made))
