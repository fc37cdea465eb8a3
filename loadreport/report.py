"""What a load test found: the data of ``report.json``, from which the pages and plots are made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ValidationError

#: The variant that the others are compared with.
REFERENCE = "vgg16"
_GIB = 2**30
DeviceKind: TypeAlias = Literal["cpu", "gpu", "mixed"]
#: How the name of a CPU ends, and no GPU's: "AMD EPYC, 2 cores".
_CORES = re.compile(r"\d+ cores")


class ReportError(ValueError):
    """A report cannot be read or written; the text says why, in one line."""


class Step(BaseModel):
    """One rate that was tried."""

    rate: float
    """Requests a second that were due."""
    seconds: float
    samples: int
    """The number of answers that the percentiles are of."""
    pictures_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    confirmation: bool
    why_not: str | None
    """Why the rate did not hold; None if it held."""
    generator_bound: bool = False
    """Whether the load generator may be the reason."""

    @property
    def held(self) -> bool:
        return self.why_not is None


class Knee(BaseModel):
    """The highest rate that was confirmed, and what was measured in the confirmation."""

    rate: float
    seconds: float
    sent: int
    failed: int
    pictures_per_second: float
    """The rate times the share that was answered: a count of pictures would add the chance of Poisson arrivals."""
    p50_ms: float
    p99_ms: float
    samples: int
    phases_p50_ms: dict[str, float]
    mean_batch_size: float | None
    lag_p99_ms: float | None
    ambiguity: float
    """How far above this rate the true knee may lie, as a share of it."""


class Network(BaseModel):
    """One checkpoint."""

    name: str
    variant: str
    labels: str
    top1: float | None
    """Percent."""
    analytic_mb: float | None
    footprint_mb: float | None
    alone_p50_ms: float | None = None
    """The p50 of requests that have the service to themselves."""
    closed_per_second: float | None = None
    """Pictures a second of a closed loop of eight callers, near which the search begins."""
    probes_sent: int = 0
    """Requests in the closed loops of one and of eight callers."""
    probes_failed: int = 0
    knee: Knee | None = None
    steps: list[Step] = []
    problem: str | None = None
    """Why there is no knee."""
    generator_bound: bool = False
    """Whether the search stopped at the generator's limit, so that the network may hold more."""
    on_front: bool | None = None
    """Whether no other network of its label set is at least as good in accuracy, latency and memory, and better in one
    of them; None if it was not compared."""

    @property
    def per_gib(self) -> float | None:
        """Pictures a second per GiB (2^30 bytes) of footprint."""
        if self.knee is None or not self.footprint_mb:
            return None
        return self.knee.pictures_per_second / (self.footprint_mb * 1e6 / _GIB)


class Budget(BaseModel):
    """The requests with one budget in the mixed run."""

    name: str
    budget_ms: float | None
    sent: int
    accepted: int
    refused: int
    met: int
    p50_ms: float | None
    p99_ms: float | None
    samples: int


class BudgetRun(BaseModel):
    """The open-loop run with mixed budgets, for which the router picked the networks."""

    rate: float
    seconds: float
    sent: int
    failed: int
    budgets: list[Budget]
    pictures_by_model: dict[str, int]


class Gate(BaseModel):
    """A limit that a release must hold, and what was measured."""

    name: str
    limit: str
    measured: str
    verdict: Literal["passed", "failed", "not judged"]
    note: str
    """By how much the gate failed, or why it was not judged."""


class Change(BaseModel):
    """A network's confirmed rate in this report and in the previous one."""

    name: str
    before_per_second: float | None
    now_per_second: float | None
    ratio: float | None
    allowance: float | None
    verdict: Literal["better", "worse", "same within the noise", "not compared"]
    note: str = ""


class Comparison(BaseModel):
    """This report compared with a previous one."""

    created: str
    host: str
    changes: list[Change]
    note: str


class Report(BaseModel):
    """Everything that a load test measured, and how."""

    format: Literal[1] = 1
    created: str
    host: str
    same_machine: bool
    """Whether the generator ran on the service's machine and took some of its CPU."""
    device: str | None
    generator: dict[str, str]
    p99_limit_ms: float
    seconds: float
    """The least length of a step."""
    seed: int
    pictures: str | None
    partial: str | None = None
    """Why the load test ended early; None if it did not."""
    networks: list[Network] = []
    budget_run: BudgetRun | None = None
    no_budget_run: str | None = None
    """Why there are no figures for mixed budgets."""
    gates: list[Gate] = []
    comparison: Comparison | None = None

    @property
    def device_kind(self) -> DeviceKind:
        """What the service computes on, as its devices' names tell: ``AMD EPYC, 2 cores, NVIDIA H100`` is mixed. A
        service that does not say is taken for one on a CPU."""
        parts = [part.strip() for part in (self.device or "CPU, 1 cores").split(",")]
        cpus = sum(_CORES.fullmatch(part) is not None for part in parts)
        if not cpus:
            return "gpu"
        return "cpu" if len(parts) <= 2 * cpus else "mixed"

    def reference(self) -> Network | None:
        """VGG-16, if it was measured."""
        return next((n for n in self.networks if n.variant == REFERENCE and n.per_gib), None)

    def ratio(self, network: Network) -> float | None:
        """Pictures a second per GiB divided by VGG-16's."""
        reference = self.reference()
        if reference is None or network.per_gib is None or not reference.per_gib:
            return None
        return network.per_gib / reference.per_gib

    def ranked(self) -> list[Network]:
        """The networks by pictures a second per GiB, highest first, then those without a figure.

        Networks of another task than VGG-16's come last.
        """
        reference = self.reference()
        task = None if reference is None else reference.labels
        return sorted(self.networks, key=lambda n: (task not in (None, n.labels), -(n.per_gib or 0.0)))


def read_report(path: Path) -> Report:
    """Reads a ``report.json``.

    Raises:
        ReportError: it cannot be read or has another format.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ReportError(f"{path} is not a report of topfive loadtest in format 1") from error
