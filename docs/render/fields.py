"""Turns the answers to a panel's queries into fields: series with a name, a colour and a unit, as its JSON says."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from docs.render.prometheus import Numbers, Prometheus, Series
from docs.render.queries import Json, PanelQuery, Window, queries_of, step_of
from docs.render.theme import colour, colour_of_series, colour_of_value
from docs.render.units import parts

#: Each query of a panel with its answer.
Answers = list[tuple[PanelQuery, list[Series]]]
#: The names of calculations in legends.
CALCULATIONS: Final = {"lastNotNull": "Last *", "mean": "Mean", "max": "Max", "min": "Min"}


@dataclass(frozen=True, slots=True)
class Field:
    """One series of a panel. ``config`` has the panel's defaults and the overrides that match the series."""

    name: str
    times: Numbers
    values: Numbers
    config: Json
    #: The index of the series in its panel.
    place: int

    @property
    def last(self) -> float:
        """The newest value; NaN if there is none."""
        return calculate("lastNotNull", self.values)

    @property
    def colour(self) -> str:
        mode = self.config.get("color", {})
        if mode.get("mode") == "fixed":
            return colour(mode["fixedColor"])
        if mode.get("mode") == "thresholds":
            return self.colour_of(self.last)
        return colour_of_series(self.place)

    def colour_of(self, value: float) -> str:
        """The colour of a value by the panel's thresholds; for NaN, the colour of text."""
        return colour("text") if np.isnan(value) else colour_of_value(value, self.config["thresholds"])

    def written(self, value: float) -> tuple[str, str]:
        """The text of a value, and its unit."""
        return parts(value, self.config["unit"], self.config.get("decimals"))

    def custom(self, name: str, otherwise: Any = None) -> Any:
        """A setting that only this type of panel has."""
        return self.config.get("custom", {}).get(name, otherwise)


def ask(prometheus: Prometheus, panel: Json, window: Window) -> Answers:
    """Sends the queries of a panel. Raises PrometheusError."""
    step = step_of(panel, window)
    return [
        (
            query,
            prometheus.at(query.expression, window.end)
            if query.instant
            else prometheus.over(query.expression, window, step),
        )
        for query in queries_of(panel, window)
    ]


def fields(panel: Json, answers: Answers) -> list[Field]:
    """The fields of a panel, from the answers to its queries."""
    found: list[Field] = []
    for query, answer in answers:
        for series in answer:
            name = _name(query.legend, series.labels)
            found.append(Field(name, series.times, series.values, _config(panel, name), len(found)))
    return found


def is_empty(answers: Answers) -> bool:
    """Whether there is nothing to draw: no series has a value."""
    return all(np.isnan(series.values).all() for _, answer in answers for series in answer)


def calculate(name: str, values: Numbers) -> float:
    """A calculation of a series, as legends and big numbers show it; NaN if the series has no values."""
    there = values[~np.isnan(values)]
    if not len(there):
        return float("nan")
    return float({"lastNotNull": there[-1], "mean": there.mean(), "max": there.max(), "min": there.min()}[name])


def _name(legend: str, labels: dict[str, str]) -> str:
    """The legend with Grafana's ``{{label}}`` replaced."""
    return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), legend).strip()


def _config(panel: Json, name: str) -> Json:
    config: Json = deepcopy(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"].get("overrides", []):
        if not _matches(override["matcher"], name):
            continue
        for setting in override["properties"]:
            *path, last = setting["id"].split(".")
            place = config
            for part in path:
                place = place.setdefault(part, {})
            place[last] = setting["value"]
    return config


def _matches(matcher: Json, name: str) -> bool:
    """Whether an override is for the series of this name. Grafana writes regular expressions between slashes."""
    if matcher["id"] == "byRegexp":
        return re.search(matcher["options"].strip("/"), name) is not None
    return bool(matcher["options"] == name)
