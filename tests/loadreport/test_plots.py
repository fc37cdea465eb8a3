"""The plots: drawn the same way each time, of the networks that can be compared."""

from __future__ import annotations

from xml.etree import ElementTree

from matplotlib.colors import to_hex

from loadreport.plots import plots, png, svg
from loadreport.report import Report
from tests import reports

BAD = "#c0392b"


def words(report: Report, name: str) -> str:
    return "".join(ElementTree.fromstring(svg(plots(report)[name])).itertext())


def test_plots_are_drawn_the_same_way_each_time() -> None:
    full = reports.full()
    figures = plots(full)
    assert list(figures) == ["per_gib", "front", "budgets", "steps"]
    drawing = svg(figures["per_gib"])
    assert drawing == svg(plots(full)["per_gib"])
    assert "192  (40.9 x VGG-16)" in words(full, "per_gib")
    assert "lenet5" not in words(full, "per_gib")
    assert png(figures["per_gib"]).startswith(b"\x89PNG")


def test_without_figures_there_are_no_plots() -> None:
    network = reports.network("vgg16@untrained", knee=None, steps=[])
    assert plots(reports.report(network, budget_run=None)) == {}
    untimed = reports.budget_run(reports.budget("memory_mb=250", None))
    assert plots(reports.report(network, budget_run=untimed)) == {}


def test_bars_are_as_long_as_the_figures_and_the_best_is_on_top() -> None:
    left, middle, right = plots(reports.report())["per_gib"].axes
    assert [bar.get_width() for bar in middle.patches] == [34.0, 42.0, 9.0, 4.0]
    assert [bar.get_width() for bar in right.patches] == [190.0, 389.0, 261.0, 915.0]
    assert left.patches[0].get_width() == 34.0 / (190e6 / 2**30)
    # VGG-16, with which the others are compared, has a colour of its own.
    colours = [to_hex(bar.get_facecolor()) for bar in left.patches]
    assert len(set(colours[:3])) == 1 != len(set(colours))
    # The first bar is on top.
    assert left.yaxis.get_inverted()


def test_dollar_signs_in_a_name_are_no_formula() -> None:
    network = reports.network("vgg16@untrained")
    network.variant = network.labels = "$1 \\bad{$"
    assert "$1 \\bad{$" in words(reports.report(network), "per_gib")


def test_without_vgg16_the_most_frequent_task_is_shown() -> None:
    names = ("lenet5@a", "lenet5@b", "alexnet@untrained")
    report = reports.report(*(reports.network(name) for name in names))
    assert "mnist" in words(report, "per_gib")
    assert "alexnet" not in words(report, "per_gib")


def test_a_partial_report_is_marked_in_its_picture() -> None:
    assert "PARTIAL; at the highest rate with p99 within 1,000 ms" in words(reports.report(partial="gone"), "per_gib")
    assert "PARTIAL" not in words(reports.report(), "per_gib")


def test_a_budget_that_was_exceeded_is_red() -> None:
    run = reports.budget_run(
        reports.budget("latency_ms=150", 150.0, p50_ms=75.0, p99_ms=150.0),
        reports.budget("latency_ms=100", 100.0, p50_ms=75.0, p99_ms=101.0),
    )
    (axes,) = plots(reports.report(budget_run=run))["budgets"].axes
    met, exceeded = axes.lines[:2]
    assert list(met.get_xdata()) == [0.5, 1.0]
    assert to_hex(met.get_color()) != BAD
    assert to_hex(exceeded.get_color()) == BAD


def test_steps_that_did_not_hold_are_red() -> None:
    (axes,) = plots(reports.report(reports.network("vgg16@untrained")))["steps"].axes
    found = {
        round(float(points.get_offsets()[0][0]), 1): to_hex(points.get_facecolor()[0]) for points in axes.collections
    }
    assert {rate for rate, colour in found.items() if colour == BAD} == {4.4}
    assert set(found) == {3.6, 4.4, 4.0}


def test_points_on_the_front_are_full() -> None:
    networks = [
        reports.network("vgg16@untrained", on_front=True),
        reports.network("alexnet@untrained", on_front=False),
    ]
    left, right = plots(reports.report(*networks))["front"].axes
    for axes, xs in ((left, [915.0, 389.0]), (right, [187.0, 27.0])):
        assert [float(points.get_offsets()[0][0]) for points in axes.collections] == xs
        # A hollow point has no face.
        assert [len(points.get_facecolor()) for points in axes.collections] == [1, 0]


def test_steps_are_at_their_rate_and_p99_under_the_limit_of_the_report() -> None:
    network = reports.network("vgg16@untrained", steps=[reports.step(3.0, p50_ms=1.0, p99_ms=640.0)])
    silent = reports.network(
        "alexnet@untrained", steps=[reports.step(3.0, p99_ms=None, why_not="nothing was answered")]
    )
    (axes,) = plots(reports.report(network, silent, p99_limit_ms=750.0))["steps"].axes
    assert [tuple(points.get_offsets()[0]) for points in axes.collections] == [(3.0, 640.0)]
    assert list(axes.lines[0].get_ydata()) == [750.0, 750.0]
    assert axes.get_title("left") == "vgg16"


def test_names_that_would_overlap_are_below_their_points() -> None:
    close = [
        reports.network(f"{name}@untrained", top1=top1, footprint_mb=mb, alone_p50_ms=ms, on_front=True)
        for name, top1, mb, ms in (("a", 70.0, 100.0, 10.0), ("b", 69.0, 110.0, 11.0), ("c", 60.0, 110.0, 11.0))
    ]
    left, _ = plots(reports.report(*close))["front"].axes
    heights = {text.get_text(): text.xyann[1] for text in left.texts}
    assert heights == {"a": 8, "b": -8, "c": 8}


def test_ticks_are_round_numbers() -> None:
    left, _ = plots(reports.full())["front"].axes
    assert [label.get_text() for label in left.get_xticklabels()] == ["20", "50", "100", "200", "500", "1,000"]
