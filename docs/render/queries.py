"""Reads the dashboards and the queries in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: A dashboard or a panel, as in Grafana's JSON.
Json = dict[str, Any]
FOLDER: Final = Path(__file__).parents[2] / "service/observability/grafana/dashboards"
#: The value that the dashboards' variables have when all models or deployments are selected.
_ALL: Final = ".*"


@dataclass(frozen=True, slots=True)
class Window:
    """The time range to show, in seconds since 1970, and its resolution."""

    start: float
    end: float
    step: float = 5.0
    #: The window of rates: four scrapes, as in Grafana, so that a missed scrape leaves no gap.
    rate_interval: float = 20.0

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of a panel, ready to be sent."""

    panel: str
    expression: str
    #: Grafana's letter for it: A, B, ...
    ref: str
    #: Whether it is evaluated only at the end of the time range.
    instant: bool
    legend: str
    #: Whether the panel has a text for the case that there is no data, which is then no fault.
    may_be_empty: bool


def dashboards(folder: Path = FOLDER) -> dict[str, Json]:
    """The dashboards, by the names of their files without ``.json``.

    Raises:
        OSError: the folder cannot be read.
        ValueError: the folder has no dashboards, or a file is not JSON.
    """
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise ValueError(f"no dashboards in {folder}")
    return found


def panels(dashboard: Json) -> Iterator[Json]:
    """All panels except the titles of rows."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def panel_queries(dashboard: Json, window: Window) -> list[PanelQuery]:
    """All queries of all panels in reading order, with all models and deployments selected."""
    return [query for panel in panels(dashboard) for query in queries_of(panel, window)]


def queries_of(panel: Json, window: Window) -> list[PanelQuery]:
    """The queries of one panel."""
    interval = step_of(panel, window)
    return [
        PanelQuery(
            panel=panel["title"],
            expression=substitute(target["expr"], window, interval),
            ref=target["refId"],
            instant=target.get("instant", False),
            legend=target.get("legendFormat", ""),
            may_be_empty="noValue" in panel["fieldConfig"]["defaults"],
        )
        for target in panel.get("targets", [])
    ]


def step_of(panel: Json, window: Window) -> float:
    """Seconds between two values. A panel may have a longer interval than the window."""
    return max(window.step, seconds(panel["interval"]) if "interval" in panel else 0)


def substitute(expression: str, window: Window, interval: float) -> str:
    """An expression with Grafana's variables replaced. ``interval`` is the panel's number of seconds between two
    values."""
    values = {
        "$__rate_interval": f"{max(window.rate_interval, interval):.0f}s",
        "$__range": f"{window.seconds:.0f}s",
        "$__interval": f"{interval:.0f}s",
        "$model": _ALL,
        "$deployment": _ALL,
    }
    for name, value in values.items():
        expression = expression.replace(name, value)
    if "$" in expression:
        raise ValueError(f"unknown variable: {expression}")
    return expression


def seconds(duration: str) -> float:
    """A duration as Grafana writes it, ``15s`` or ``1m``, in seconds."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
