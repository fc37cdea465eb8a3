"""The plots show the shares of the report."""

from __future__ import annotations

import pytest

from loadreport.plots import svg
from service.twin.comparison import Comparison, Point
from service.twin.plots import classes, loads
from service.twin.report import report
from service.twin.scenario import Scenario
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


def test_loads_are_lines_of_attainment_and_accuracy() -> None:
    points = [
        Point(
            arrivals=kind,
            load=load,
            rate=load,
            policy=policy,
            stands_for=policy,
            attainment=share,
            attainment_accepted=1.0,
            top1=50 + load,
            goodput=1.0,
            flips=0,
        )
        for kind in ("poisson", "gamma")
        for policy, share in (("router", 0.9), ("infaas", 0.7))
        for load in (0.5, 2.0)
    ]
    figure = loads(Comparison(scenario=Scenario(), peak=1.0, points=points, regrets={}))
    attained, _, accurate, _ = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in attained.lines}
    assert lines["router"] == [[0.5, 90], [2.0, 90]]
    assert lines["infaas"] == [[0.5, 70], [2.0, 70]]
    assert accurate.lines[0].get_xydata().tolist() == [[0.5, 50.5], [2.0, 52]]
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["poisson arrivals", "gamma arrivals"]
