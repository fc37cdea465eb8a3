"""A budget, and the router's decision under it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, model_serializer

from models.checkpoints.catalogue import Checkpoint
from service.domain.ensemble import Ensemble
from service.domain.snapshot import Candidate, Snapshot

#: By which predictions are multiplied at least before they are held against a budget: room for what no clock of ours
#: sees, the way from the caller and back.
LEAST_SAFETY = 1.1

Rejection = Literal["latency", "memory", "accuracy", "overloaded", "weights missing"]


class Budget(NamedTuple):
    """What the caller allows."""

    latency_s: float
    """From now on until the answer."""
    memory_bytes: float | None = None
    """For the footprint."""
    min_top1: float | None = None
    """Percent."""
    stated_s: float | None = None
    """What the caller said: until the answer, from the end of the request's body on."""

    @property
    def whole_s(self) -> float:
        """Until the answer, from the arrival on."""
        return self.latency_s if self.stated_s is None else self.stated_s

    @property
    def gone_s(self) -> float:
        """What has passed of it since the arrival."""
        return self.whole_s - self.latency_s

    def __str__(self) -> str:
        return milliseconds(self.whole_s)


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


class Decision(NamedTuple):
    """The checkpoint to ask, or the ensemble, and why."""

    checkpoint: Checkpoint | Ensemble
    routing: Routing | None = None
    predicted_s: float | None = None
    """From the decision until the answer."""
    snapshot: Snapshot | None = None
    safety: float = 1.0
    """Of the prediction."""
    routed_for: str = "named"
    """Named by the caller, the most accurate there is, or what is in the way of a more accurate one."""
    accuracy_debt: float | None = None
    """Top-1 percentage points that were lost to the load; None where there was no choice."""
    trial_s: float | None = None
    """Of a picture that is let in on trial: what it may take, from the decision until the answer."""


class Fit(NamedTuple):
    """How a candidate does under a budget."""

    candidate: Candidate
    rejected: Rejection | None
    predicted_s: float | None
    trial: bool = False
    """It fits by its profile alone, and is let in on trial: ``predicted_s`` is the profile's."""


def milliseconds(seconds: float) -> str:
    """For people."""
    number = seconds * 1000
    return f"{number:.0f} ms" if number >= 10 else f"{number:.3g} ms"
