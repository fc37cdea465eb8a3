"""Shows how far a load test is: the current run and the time left on a terminal, and a line for each step anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from loadreport.steps import CONFIRM_ARRIVALS, LONGEST_S, LOOK_ARRIVALS, WARM_UP_S, Plan

#: What it takes to start and end Locust.
_AROUND_S = 3.0
#: The usual number of looks until a knee is found.
_LOOKS = 5


class _Bars(Progress):
    """Progress bars that ask for the time passed each time that they are drawn."""

    tick: Callable[[], None] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.tick is not None:
            self.tick()
        return super().get_renderables()


class _TimeLeft(ProgressColumn):
    """The estimated time left, which changes as the search finds the rates."""

    def render(self, task: Task) -> Text:
        left = max(0.0, (task.total or 0) - task.completed)
        return Text(f"about {timedelta(seconds=10 * math.ceil(left / 10))} left", style="progress.remaining")


class Shown:
    """Shows a campaign's progress on a console.

    The time that the remaining networks will take is estimated from the network before them.
    """

    def __init__(self, console: Console, bars: Progress, plan: Plan, networks: int) -> None:
        self._console = console
        self._bars = bars
        self._networks_left = networks
        self._mix_s = plan.budget_s + _AROUND_S if plan.budgets else 0.0
        self._network_s = expected_s(plan)
        self._network_began = self._run_began = time.monotonic()
        self._began = self._run_began
        self._run_s = 0.0
        self._task = bars.add_task("", total=self._left())

    def begins(self, what: str, seconds: float) -> None:
        self._run_began, self._run_s = time.monotonic(), seconds
        self._bars.update(self._task, description=escape(what))

    def ended(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def network_ended(self) -> None:
        took = time.monotonic() - self._network_began
        # The next networks may be slower, so that one short network only halves the estimate.
        self._network_s = max(took, self._network_s / 2)
        self._network_began = time.monotonic()
        self._networks_left -= 1

    def tick(self) -> None:
        """Updates the time passed and the time left."""
        passed = time.monotonic() - self._began
        self._bars.update(self._task, completed=passed, total=passed + self._left())

    def _left(self) -> float:
        now = time.monotonic()
        run_left = max(0.0, self._run_s - (now - self._run_began))
        if not self._networks_left:
            return max(run_left, self._mix_s - (now - self._network_began), 0.0)
        this = max(self._network_s - (now - self._network_began), run_left, 0.0)
        return this + (self._networks_left - 1) * self._network_s + self._mix_s


def expected_s(plan: Plan) -> float:
    """About how many seconds a network takes that answers ten pictures a second."""
    look = max(plan.seconds, LOOK_ARRIVALS / 10) + WARM_UP_S + _AROUND_S
    confirmation = min(max(2 * plan.seconds, CONFIRM_ARRIVALS / 10), LONGEST_S) + WARM_UP_S + _AROUND_S
    return 2 * (plan.probe_s + WARM_UP_S + _AROUND_S) + _LOOKS * look + confirmation


@contextmanager
def progress(console: Console, plan: Plan, networks: int) -> Iterator[Shown]:
    """Shows the progress bar while the load test runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), _TimeLeft())
    with _Bars(*columns, console=console, transient=True) as bars:
        shown = Shown(console, bars, plan, networks)
        bars.tick = shown.tick
        yield shown
