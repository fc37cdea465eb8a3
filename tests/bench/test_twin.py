"""The simulation gets what the service gets, and both are counted alike."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from open_loop import MIX, Outcome, arrivals
from PIL import Image
from twin import Figures, measured, off, rows, scenario, simulated, slower, within, write_trace

from service.twin.running import Outcome as Simulated
from service.twin.running import Sent, due_times
from service.twin.scenario import Device


def outcome(status: int, took_ms: float, model: str = "", own_ms: float = 1.0) -> Outcome:
    return Outcome(0.0, "latency_ms=150", 150.0, status, took_ms, model, actual_ms=own_ms)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    return file.getvalue()


def asked(trace: Path, **options: bool) -> Simulated:
    return Simulated(scenario(trace, 10.0, picture(), Device(), cores=2, **{"shared": True, **options}))


def test_the_simulation_gets_the_same_arrivals(tmp_path: Path) -> None:
    due = arrivals(20.0, 10.0, 3)
    write_trace(due, tmp_path / "trace.csv")
    found = asked(tmp_path / "trace.csv").scenario
    assert [(at, MIX[row]) for at, row in due_times(found) if row is not None] == due
    assert len(due) == 200


def test_it_gets_the_same_pictures_on_the_same_cores(tmp_path: Path) -> None:
    found = asked(tmp_path / "trace.csv", shared=False).scenario
    outline = found.mix[3].outline
    assert (outline.kind, outline.width, outline.height, outline.size) == ("png", 40, 30, len(picture()))
    assert (found.shared, found.cores, found.callers, found.retries) == (False, 2, 1, "never")


def test_of_four_pictures_half_are_answered_in_time() -> None:
    """One is late, and one is refused."""
    outcomes = [outcome(200, 100, "a"), outcome(200, 120, "b"), outcome(200, 180, "b"), outcome(429, 1)]
    found = measured(outcomes)
    assert (found.pictures, found.attainment, found.p50_ms) == (4, 0.5, 120)
    assert found.p95_ms == pytest.approx(120 + 0.9 * 60)
    assert found.shares == {"b": pytest.approx(2 / 3), "a": pytest.approx(1 / 3)}
    # By the service's clock nobody is late.
    assert (measured(outcomes, own_clock=True).attainment, measured(outcomes, own_clock=True).p95_ms) == (0.75, 1)


def test_simulated_pictures_are_counted_alike(tmp_path: Path) -> None:
    """The same four: the row's budget is 150 ms."""
    made = asked(tmp_path / "trace.csv")
    for took_s, model in ((0.1, "a"), (0.12, "b"), (0.18, "b")):
        made.sent.append(Sent(0, 0.0, 1, took_s, "ok", model, 60.0, None))
    made.sent.append(Sent(0, 0.0, 1, 0.001, "overloaded", "", 0.0, 3.0))
    expected = measured([outcome(200, 100, "a"), outcome(200, 120, "b"), outcome(200, 180, "b"), outcome(429, 1)])
    found = simulated(made)
    assert found.p95_ms == pytest.approx(expected.p95_ms)
    assert (found.pictures, found.attainment, found.shares) == (4, 0.5, expected.shares)


def figures(attainment: float = 0.8, p50: float = 100.0, p95: float = 300.0, **shares: float) -> Figures:
    return Figures(100, attainment, p50, p95, shares)


def test_times_differ_by_parts_and_shares_by_points() -> None:
    by = off(figures(a=0.5, b=0.5), figures(0.6, 110.0, 270.0, b=0.9, c=0.1))
    assert by == pytest.approx({"attainment": -0.25, "p50_ms": 0.1, "p95_ms": -0.1, "a": -0.5, "b": 0.4, "c": 0.1})
    assert off(figures(0.0), figures())["attainment"] == math.inf


@pytest.mark.parametrize(
    "twin",
    [
        figures(0.95, a=0.5, b=0.5),
        figures(p50=84.0, a=0.5, b=0.5),
        figures(p95=346.0, a=0.5, b=0.5),
        figures(a=0.66, b=0.34),
        figures(a=0.34, b=0.5, c=0.16),
    ],
)
def test_one_figure_that_is_far_off_is_too_many(twin: Figures) -> None:
    real = figures(a=0.5, b=0.5)
    assert within(real, figures(0.7, 114.0, 260.0, a=0.6, b=0.4))
    assert not within(real, twin)


def test_rows_name_networks_that_were_seen_most_frequent_first() -> None:
    real, twin = figures(a=0.3, b=0.69, c=0.01), figures(0.84, a=0.25, b=0.65, d=0.1)
    found = rows(0.5, real, real, twin)
    assert found[0] == ("0.5 x", "attainment", "80.0%", "80.0%", "84.0%", "+5%")
    assert [row[1] for row in found] == ["attainment", "p50, ms", "p95, ms", "`b`", "`a`", "`d`"]
    assert found[3][-1] == "-4.0 points"


def test_passes_are_compared_with_the_profile() -> None:
    """The shipped profile has 27.449 ms for a lone picture with AlexNet, and 67.156 for four."""
    lone, four = outcome(200, 1.0, "alexnet"), outcome(200, 1.0, "alexnet")
    lone.timings_ms, lone.batch_size = {"forward": 2 * 27.449, "decode": 4.0}, 1
    four.timings_ms, four.batch_size = {"forward": 3 * 67.156, "decode": 6.0}, 4
    assert slower([lone, four, outcome(429, 1.0)], "cpu-2-cores") == pytest.approx((2.5, 5.0))
