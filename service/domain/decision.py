"""What a caller allows (a budget), how each checkpoint does under it (a fit), and what the router decides."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, model_serializer

from models.checkpoints.catalogue import Checkpoint
from service.domain.ensemble import Ensemble
from service.domain.snapshot import Candidate, Snapshot

#: Minimum safety factor: predictions are multiplied by at least this before they are compared with a budget. It
#: leaves room for the network between the caller and the service, which the service cannot measure.
LEAST_SAFETY = 1.1

Rejection = Literal["latency", "memory", "accuracy", "overloaded", "weights missing"]


class Budget(NamedTuple):
    """What the caller allows."""

    latency_s: float
    """The time that is left, from the decision until the answer."""
    memory_bytes: float | None = None
    """The largest footprint; None for any."""
    min_top1: float | None = None
    """The lowest top-1 accuracy in percent; None for any."""
    stated_s: float | None = None
    """The time that the caller stated, from the end of the request's body until the answer; ``latency_s`` if None."""

    @property
    def whole_s(self) -> float:
        """The whole time, from the end of the request's body until the answer."""
        return self.latency_s if self.stated_s is None else self.stated_s

    @property
    def gone_s(self) -> float:
        """The part of the whole time that had passed before the decision."""
        return self.whole_s - self.latency_s

    def __str__(self) -> str:
        return milliseconds(self.whole_s)


class Considered(BaseModel):
    """A checkpoint that the router could not pick, and why: ``latency`` is too slow even with empty queues,
    ``overloaded`` is fast enough but not now."""

    model: str
    rejected: Literal["latency", "memory", "accuracy", "overloaded", "weights missing"]
    predicted_ms: float | None = None
    footprint_mb: float | None = None

    @model_serializer
    def _known(self) -> dict[str, Any]:
        """Leaves out the fields that are unknown."""
        return {name: value for name, value in self if value is not None}


class Routing(BaseModel):
    """Why this checkpoint answers."""

    reason: str
    predicted_ms: float | None = None
    """From the end of the request's body until the answer."""
    considered: list[Considered]
    """The checkpoints that were not picked because something is in the way."""


class Decision(NamedTuple):
    """Which checkpoint or ensemble answers a picture, and why."""

    checkpoint: Checkpoint | Ensemble
    routing: Routing | None = None
    """What the answer says about the choice; None where the caller named a model without a budget."""
    predicted_s: float | None = None
    """The predicted time from the decision until the answer; None if nothing is known."""
    snapshot: Snapshot | None = None
    """The snapshot used for the prediction."""
    safety: float = 1.0
    """The safety factor of the prediction."""
    routed_for: str = "named"
    """The metrics' label: ``named`` by the caller, ``most accurate``, or why a more accurate one was not picked."""
    accuracy_debt: float | None = None
    """Top-1 percentage points that were lost to the load; None where there was no choice."""
    within_s: float | None = None
    """The time that the answer may take, from the decision on; None if nothing is known."""
    trial: bool = False
    """Whether the picture is admitted on trial."""
    spares: bool = False
    """Whether a network that takes less of the device would do, by the caller's limits. Known while device time has a
    price."""
    members: tuple[tuple[Checkpoint, Snapshot], ...] = ()
    """Only for an ensemble: the snapshots of its members."""


class Fit(NamedTuple):
    """How a candidate does under a budget."""

    candidate: Candidate
    rejected: Rejection | None
    """The reason against the candidate; None if it fits."""
    predicted_s: float | None
    """From the decision until the answer; None if it was not predicted."""
    trial: bool = False
    """Whether the candidate fits by its profile alone, so that a picture is admitted on trial; ``predicted_s`` is then
    from the profile."""


def milliseconds(seconds: float) -> str:
    """Milliseconds as text for people: three digits below 10 ms, none after the point above."""
    number = seconds * 1000
    return f"{number:.0f} ms" if number >= 10 else f"{number:.3g} ms"
