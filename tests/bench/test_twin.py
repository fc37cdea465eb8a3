"""The simulation gets what the service gets, and both are counted alike."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from open_loop import MIX, Outcome, arrivals
from PIL import Image
from twin import Figures, Pace, measured, off, paces, rows, scenario, simulated, within, write_trace

from models.checkpoints.catalogue import Catalogue
from models.images.cost import price
from models.images.outline import glance
from service.twin.running import Outcome as Simulated
from service.twin.running import Sent, due_times


def outcome(status: int, took_ms: float, model: str = "", own_ms: float = 1.0) -> Outcome:
    return Outcome(0.0, "latency_ms=150", 150.0, status, took_ms, model, actual_ms=own_ms)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    return file.getvalue()


def asked(trace: Path, pace: Pace | None = None) -> Simulated:
    return Simulated(scenario(trace, 10.0, picture(), "cpu-2-cores", pace, cores=2))


def test_the_simulation_gets_the_same_arrivals(tmp_path: Path) -> None:
    due = arrivals(20.0, 10.0, 3)
    write_trace(due, tmp_path / "trace.csv")
    found = asked(tmp_path / "trace.csv").scenario
    assert [(at, MIX[row]) for at, row in due_times(found) if row is not None] == due
    assert len(due) == 200


def test_it_gets_the_same_pictures_on_the_same_cores(tmp_path: Path) -> None:
    found = asked(tmp_path / "trace.csv", Pace({"alexnet": 0.7}, 1.5, 1.0)).scenario
    outline = found.mix[3].outline
    assert (outline.kind, outline.width, outline.height, outline.size) == ("png", 40, 30, len(picture()))
    assert (found.cores, found.callers, found.retries) == (2, 1, "never")
    assert (found.shared, found.decode_pace, found.device[0].pace) == (True, 1.5, {"alexnet": 0.7})
    as_profiled = asked(tmp_path / "trace.csv").scenario
    assert (as_profiled.shared, as_profiled.decode_pace, as_profiled.device[0].pace) == (True, 1.0, {})


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


def test_passes_are_compared_with_the_profile_each_once() -> None:
    """The shipped profile has 27.449 ms for a lone picture with AlexNet, and 67.156 for four, which have an answer
    each; 33.476 for Inception v2. A decode is priced."""
    photograph = picture()
    named = ("alexnet", 2 * 27.449, 1), *4 * [("alexnet", 3 * 67.156, 4)], ("inception_v2", 16.738, 1)
    priced = 1000 * price(glance(photograph), Catalogue(Path(), untrained=True).find("alexnet").preprocess).seconds
    outcomes = [outcome(200, 1.0, model) for model, *_ in named]
    for answer, (_, forward, size) in zip(outcomes, named, strict=True):
        answer.timings_ms, answer.batch_size = {"forward": forward, "decode": 4 * priced}, size
    # Others met a pass.
    for answer in outcomes[2:]:
        answer.timings_ms["decode"] *= 3  # type: ignore[index]
    found = paces([*outcomes, outcome(429, 1.0)], "cpu-2-cores", photograph)
    alexnet = (2 * 27.449 + 3 * 67.156) / (27.449 + 67.156)
    assert found.passes["alexnet"] == pytest.approx(alexnet)
    assert found.passes["inception_v2"] == pytest.approx(0.5)
    # Whoever did not answer: all took 54.898 + 201.468 + 16.738 ms of 27.449 + 67.156 + 33.476.
    assert found.passes["vgg16"] == pytest.approx(273.104 / 128.081, rel=1e-4)
    assert found.decodes == pytest.approx(4, rel=0.2)
    # The first half is the lone picture and half of the four.
    first = (2 * 27.449 + 2 * 3 * 67.156 / 4) / (27.449 + 2 * 67.156 / 4)
    second = (2 * 3 * 67.156 / 4 + 16.738) / (2 * 67.156 / 4 + 33.476)
    assert found.drift == pytest.approx(second / first)
    with pytest.raises(ValueError, match="nobody"):
        paces([outcome(429, 1.0)], "cpu-2-cores", photograph)
