"""The shapes of HTTP: queries that come in, answers that go out. Field names are the contract."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.domain.decision import Considered, Routing


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
