"""What one run of Locust measured: the part of its ``--results`` file that the report needs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from loadreport.formatting import first_error


class ResultsError(ValueError):
    """The results file is missing or has another form."""


class Summary(BaseModel):
    """Mean, percentiles and maximum of ``count`` values in milliseconds; all None if there are no values."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class ModelResults(BaseModel):
    """The answers of one network; ``pictures`` counts those in bulk requests too."""

    model_config = ConfigDict(protected_namespaces=())

    pictures: int
    latency_ms: Summary = Summary()
    mean_batch_size: float | None = None


class BudgetResults(BaseModel):
    """The requests with one budget; ``met`` are those answered with 200 within ``budget_ms`` by the client's clock."""

    budget_ms: float | None = None
    sent: int
    accepted: int
    refused: int
    met: int
    latency_ms: Summary = Summary()


class Generator(BaseModel):
    """The load generator's share of one core, and whether that limited the run."""

    cpu_share: float | None = None
    bottleneck: bool = False


class Results(BaseModel):
    """One run; all figures are of the requests after its warm-up."""

    format: Literal[1]
    partial: bool
    window_s: float
    sent: int
    answered: int
    pictures: int
    pictures_per_second: float
    unsent: int = 0
    unanswered: int = 0
    latency_ms: Summary
    lag_ms: Summary = Summary()
    phases_ms: dict[str, Summary] = {}
    refused: dict[str, int] = {}
    failures: dict[str, int] = {}
    by_model: dict[str, ModelResults] = {}
    by_budget: dict[str, BudgetResults] = {}
    generator: Generator = Generator()

    @property
    def failed(self) -> int:
        """The number of requests that failed; a refusal (422, 429) is not a failure."""
        return sum(self.failures.values())

    @property
    def mean_batch_size(self) -> float | None:
        """The mean batch size of the network that answered most pictures."""
        most = max(self.by_model.values(), key=lambda model: model.pictures, default=None)
        return None if most is None else most.mean_batch_size


def read_results(path: Path) -> Results:
    """Reads a results file.

    Raises:
        ResultsError: the file is missing or has another form.
    """
    try:
        return Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResultsError("Locust wrote no results") from error
    except ValidationError as error:
        raise ResultsError(f"Locust's results have an unknown form: {first_error(error)}") from error
