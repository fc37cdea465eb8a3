"""The JSON that goes out, and the query parameters of the paths beside ``/classify``. Field names are the contract."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.domain.decision import Considered, Routing


class UnloadQuery(BaseModel):
    """Query parameters of ``POST /models/{name}/unload``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wait: bool = Field(False, description="Whether to wait until the requests in flight are answered.")


class TargetsQuery(BaseModel):
    """Query parameters of ``GET /metrics/targets``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: Literal["topfive", "ray", "haproxy"] = Field(
        "topfive", description="Whose metrics: the service's, Ray's or HAProxy's."
    )


class NoQuery(BaseModel):
    """The query of paths that take no parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelProbability(BaseModel):
    """One class, in words and by its number, and how probable it is."""

    label: str
    index: int
    probability: float


class CheckpointAnswer(BaseModel):
    """The checkpoint that answered."""

    name: str
    labels: str
    origin: str
    trained: bool
    top1: float | None


class Timings(BaseModel):
    """Milliseconds of each phase. ``total`` counts from the end of the request's body until the answer."""

    decode: float
    queue: float
    forward: float
    total: float


class MemberAnswer(BaseModel):
    """What one member of an ensemble took."""

    model: str
    checkpoint: CheckpointAnswer
    timings_ms: Timings
    """``total`` counts from the moment when all members were asked until this one had its probabilities."""
    batch_size: int


class Answer(BaseModel):
    """The answer of ``POST /classify`` for one picture. ``top5`` has ``k`` entries, and keeps its name.

    For an ensemble, ``decode``, ``queue`` and ``forward`` are those of the member that finished last, and
    ``batch_size`` is that of the smallest batch among its members'.
    """

    model: str
    checkpoint: CheckpointAnswer
    top5: list[LabelProbability]
    timings_ms: Timings
    batch_size: int
    routing: Routing | None = None
    members: list[MemberAnswer] | None = None
    """Only for an ensemble; in the caller's order."""


class RouteAnswer(BaseModel):
    """The answer of ``POST /route``: the checkpoint that would answer now."""

    model: str
    predicted_ms: float | None
    footprint_mb: float | None
    reason: str
    considered: list[Considered]


class BulkAnswer(BaseModel):
    """The answer for several pictures: for each, in order, a whole answer with ``status`` 200 or a whole problem
    document."""

    results: list[dict[str, Any]]


class Outlook(BaseModel):
    """What a checkpoint takes on this device: measured in advance, corrected by what its requests took."""

    forward_p95_ms: dict[int, float]
    """By batch size: the latency that 95 % of forward passes stay below."""
    load_ms: float
    """How long a load would take now; 0 if the checkpoint is in memory."""
    queued: int
    """Pictures that wait for it."""
    safety: float
    """The factor by which predicted times are multiplied before they are compared with a budget."""
    predictions: int
    """How many predictions the medians below are of: the latest ones, at most 256."""
    median_ratio: float | None
    """Median of actual / predicted time."""
    median_error: float | None
    """Median of |predicted - actual| / actual time."""


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
    """For one picture."""
    top1: float | None
    top5: float | None
    top1_origin: str | None = None
    """Where both are from, as in ``measured here on 10,000 pictures``; null if that is unknown."""
    analytic_mb: float
    footprint_mb: float | None
    state: Literal["ready", "loadable", "weights missing"]
    resident: bool
    origin: str
    preprocess: dict[str, Any]
    mend: str | None = None
    """How to get weights that are missing."""
    failure: str | None = None
    """Why the last load failed."""
    download_mb: float | None = None
    """How much a download of the missing weights fetches."""
    outlook: Outlook | None = None


class MemoryRow(BaseModel):
    """The memory of one device that networks may take."""

    device: str
    limit_mb: float
    held_mb: float


class ModelList(BaseModel):
    """The answer of ``GET /models``."""

    models: list[ModelRow]
    memory: list[MemoryRow] = []


class ProblemDocument(BaseModel):
    """A problem document (RFC 9457). ``type`` is a path under ``/problems/``; some kinds add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
