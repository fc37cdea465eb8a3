"""The time left of a load test, by a clock that the test sets."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

import pytest
from rich.console import Console
from rich.progress import Progress

from loadreport.progress import Shown, _TimeLeft, expected_s, progress
from loadreport.steps import Plan


@dataclass
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found.monotonic)
    return found


#: Two closed loops of 6 s, five looks of 15 s and a confirmation of 30 s; each with 2 s of warm-up and 3 s around it.
NETWORK_S = 2 * 11 + 5 * 20 + 35


def left(shown: Shown) -> float:
    shown.tick()
    (task,) = shown._bars.tasks
    assert task.total is not None
    return task.total - task.completed


def test_a_network_takes_about_so_long() -> None:
    assert expected_s(Plan(seconds=15)) == NETWORK_S
    # A confirmation never takes longer than two minutes, and looks wait for 60 arrivals at ten a second.
    assert expected_s(Plan(seconds=1)) == 2 * (1 + 5) + 5 * (6 + 5) + (20 + 5)
    assert expected_s(Plan(seconds=100)) == 2 * (40 + 5) + 5 * (100 + 5) + (120 + 5)


def test_the_time_left_falls_and_is_learned_from_the_network_before(clock: Clock) -> None:
    out = io.StringIO()
    mix_s = 30 + 3
    with progress(Console(file=out), Plan(seconds=15), 3) as shown:
        assert left(shown) == pytest.approx(3 * NETWORK_S + mix_s)
        clock.now += 50
        assert left(shown) == pytest.approx(3 * NETWORK_S + mix_s - 50)
        # This network took 200 s, and so will the other two.
        clock.now += 150
        shown.network_ended()
        assert left(shown) == pytest.approx(2 * 200 + mix_s)
        # One that ends at once shortens the next to half.
        shown.network_ended()
        assert left(shown) == pytest.approx(100 + mix_s)
        shown.network_ended()
        assert left(shown) == pytest.approx(mix_s)
        clock.now += 500
        assert left(shown) == 0


def test_a_run_that_has_begun_is_waited_for(clock: Clock) -> None:
    with progress(Console(file=io.StringIO()), Plan(seconds=15, budgets=False), 1) as shown:
        clock.now += 1000
        assert left(shown) == 0
        shown.begins("a long run", 60)
        clock.now += 20
        assert left(shown) == pytest.approx(40)
        shown.network_ended()
        assert left(shown) == pytest.approx(40)


def test_every_result_is_a_line_wherever_it_is_written_to() -> None:
    out = io.StringIO()
    with progress(Console(file=out), Plan(), 1) as shown:
        shown.ended("vgg16: [4.0/s]: held")
    assert "vgg16: [4.0/s]: held\n" in out.getvalue()


@pytest.mark.parametrize(
    ("completed", "text"), [(0.0, "0:02:00"), (9.0, "0:02:00"), (10.0, "0:01:50"), (500.0, "0:00:00")]
)
def test_the_time_left_is_rounded_up_to_ten_seconds(completed: float, text: str) -> None:
    bars = Progress(console=Console(file=io.StringIO()))
    bars.add_task("", total=120.0, completed=int(completed))
    assert str(_TimeLeft().render(bars.tasks[0])) == f"about {text} left"
