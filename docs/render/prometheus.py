"""A client for the part of Prometheus's HTTP API that dashboards need."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
import numpy as np
import numpy.typing as npt

from docs.render.queries import Window

Numbers = npt.NDArray[np.float64]
_TIMEOUT_S: Final = 20.0


class PrometheusError(RuntimeError):
    """Prometheus cannot be reached, or rejects a query."""


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one combination of labels. ``times`` are in seconds since 1970."""

    labels: dict[str, str]
    times: Numbers
    values: Numbers


class Prometheus:
    """A running Prometheus. Its methods raise PrometheusError."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def over(self, expression: str, window: Window, step: float) -> list[Series]:
        """The values of an expression every ``step`` seconds, NaN where it has none.

        Times are multiples of the step, as in Grafana, so that a picture drawn a second later has the same values.
        """
        first = np.ceil(window.start / step) * step
        times = np.arange(first, window.end + 1e-6, step)
        parameters = {"query": expression, "start": first, "end": times[-1], "step": step}
        found = []
        for entry in self._ask("/api/v1/query_range", parameters):
            values = np.full(len(times), np.nan)
            for moment, value in entry["values"]:
                values[round((moment - first) / step)] = float(value)
            found.append(Series(entry["metric"], times, values))
        return found

    def at(self, expression: str, moment: float) -> list[Series]:
        """The values of an expression at one moment."""
        entries = self._ask("/api/v1/query", {"query": expression, "time": moment})
        return [Series(e["metric"], np.array([e["value"][0]]), np.array([float(e["value"][1])])) for e in entries]

    def _ask(self, path: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            answer = self._client.post(path, data=parameters)
            body = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PrometheusError(f"no Prometheus answers at {self._url}: {error}") from error
        except ValueError as error:
            raise PrometheusError(f"{self._url} is not a Prometheus: status {answer.status_code}, no JSON") from error
        if not isinstance(body, dict) or body.get("status") != "success":
            reason = body.get("error") if isinstance(body, dict) else None
            raise PrometheusError(f"{reason or 'unexpected answer'}: {parameters['query']}")
        result: list[dict[str, Any]] = body["data"]["result"]
        return sorted(result, key=lambda entry: sorted(entry["metric"].items()))
