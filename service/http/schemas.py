"""The shapes of HTTP: queries that come in, answers that go out. Field names are the contract."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer

from models.checkpoints.labels import LABEL_SETS


def _label_set(name: str) -> str:
    if name not in LABEL_SETS:
        raise ValueError(f"unknown label set; known: {', '.join(LABEL_SETS)}")
    return name


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


Finite = Annotated[float, AfterValidator(_finite)]


class ClassifyQuery(BaseModel):
    """Query parameters of ``POST /classify`` and ``POST /route``. One that is not here is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(
        None,
        min_length=1,
        description="Variant, alias or variant@label_set; without it the router picks. ensemble:NAME,NAME averages the "
        "probabilities of 2 to 8 of them.",
    )
    labels: Annotated[str, AfterValidator(_label_set)] | None = Field(
        None, description="Label set to answer with: imagenet1k, cifar10 or mnist."
    )
    latency_ms: Finite | None = Field(
        None,
        gt=0,
        le=3_600_000,
        description="Milliseconds that the answer may take, counted from the end of the request's body.",
    )
    memory_mb: Finite | None = Field(
        None,
        gt=0,
        le=10_000_000,
        description="Megabytes (10^6 bytes) that the network may need to serve, by its measured footprint.",
    )
    min_top1: Finite | None = Field(
        None, ge=0, le=100, description="Lowest top-1 accuracy in percent that the router may pick."
    )
    strict: bool = Field(
        True, description="Whether a named model that cannot meet the budget is refused; false: it answers anyway."
    )
    k: int = Field(5, ge=1, le=10, description="How many labels to answer with.")

    @property
    def has_budget(self) -> bool:
        return self.latency_ms is not None or self.memory_mb is not None or self.min_top1 is not None


class UnloadQuery(BaseModel):
    """Query parameters of ``POST /models/{name}/unload``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wait: bool = Field(False, description="Whether to wait for the requests in flight.")


class TargetsQuery(BaseModel):
    """Query parameters of ``GET /metrics/targets``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: Literal["topfive", "ray", "haproxy"] = Field("topfive", description="Whose metrics.")


class NoQuery(BaseModel):
    """No query parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelProbability(BaseModel):
    label: str
    index: int
    probability: float


class CheckpointAnswer(BaseModel):
    """Which weights answered."""

    name: str
    labels: str
    origin: str
    trained: bool
    top1: float | None


class Timings(BaseModel):
    """Milliseconds. ``total`` is from the end of the request's body until the answer."""

    decode: float
    queue: float
    forward: float
    total: float

    def header(self) -> str:
        """As Server-Timing, which browsers and load tests read."""
        return f"decode;dur={self.decode}, queue;dur={self.queue}, forward;dur={self.forward}, total;dur={self.total}"


class Considered(BaseModel):
    """A checkpoint that the router could not pick. ``latency``: too slow even with empty queues; ``overloaded``: fast
    enough, but not now."""

    model: str
    rejected: Literal["latency", "memory", "accuracy", "overloaded", "weights missing"]
    predicted_ms: float | None = None
    footprint_mb: float | None = None

    @model_serializer
    def _known(self) -> dict[str, Any]:
        """What is not known of it is left out."""
        return {name: value for name, value in self if value is not None}


class Routing(BaseModel):
    """Why this checkpoint answers."""

    reason: str
    predicted_ms: float | None = None
    """From the end of the request's body until the answer."""
    considered: list[Considered]


class MemberAnswer(BaseModel):
    """What one network did for an ensemble."""

    model: str
    checkpoint: CheckpointAnswer
    timings_ms: Timings
    """``total`` until this network had its probabilities, from the moment in which all were asked."""
    batch_size: int


class Answer(BaseModel):
    """What ``POST /classify`` says of one picture. ``top5`` keeps its name whatever ``k`` is.

    Of an ensemble, ``decode``, ``queue`` and ``forward`` are those of the member that was last, and ``batch_size`` is
    the smallest batch that a member was in.
    """

    model: str
    checkpoint: CheckpointAnswer
    top5: list[LabelProbability]
    timings_ms: Timings
    batch_size: int
    routing: Routing | None = None
    members: list[MemberAnswer] | None = None
    """Of an ensemble, in the caller's order."""


class RouteAnswer(BaseModel):
    """What ``POST /route`` says: what would answer now."""

    model: str
    predicted_ms: float | None
    footprint_mb: float | None
    reason: str
    considered: list[Considered]


class BulkAnswer(BaseModel):
    """One entry a picture, in order: a whole answer with ``status`` 200, or a whole problem document."""

    results: list[dict[str, Any]]


class Outlook(BaseModel):
    """What a checkpoint takes on this device: measured, and corrected while it serves."""

    forward_p95_ms: dict[int, float]
    """By batch size."""
    load_ms: float
    """Until it is in memory; 0 if it is."""
    queued: int
    safety: float
    """By which predictions are multiplied before they are held against a budget."""
    predictions: int
    """The last ones, up to 256, that the medians are of."""
    median_ratio: float | None
    """Of actual to predicted time."""
    median_error: float | None
    """|predicted - actual| / actual."""


class ModelRow(BaseModel):
    """A checkpoint, or a variant that has none."""

    name: str
    variant: str
    labels: str
    aliases: list[str]
    year: int
    paper: str
    params: int
    multiply_adds: int
    """Of one picture."""
    top1: float | None
    top5: float | None
    analytic_mb: float
    footprint_mb: float | None
    state: Literal["ready", "loadable", "weights missing"]
    resident: bool
    origin: str
    preprocess: dict[str, Any]
    mend: str | None = None
    """How to get the weights that are missing."""
    failure: str | None = None
    """Why it could not be loaded a moment ago."""
    download_mb: float | None = None
    """What getting them fetches."""
    outlook: Outlook | None = None


class MemoryRow(BaseModel):
    """A device's memory for loaded networks."""

    device: str
    limit_mb: float
    held_mb: float


class ModelList(BaseModel):
    models: list[ModelRow]
    memory: list[MemoryRow] = []


class ProblemDocument(BaseModel):
    """RFC 9457. ``type`` is a path under ``/problems/``; kinds of problem add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
