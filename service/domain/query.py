"""The query: a caller's request for one picture, in every protocol."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.checkpoints.labels import LABEL_SETS
from service.domain.prediction import MAX_K


def _label_set(name: str) -> str:
    if name not in LABEL_SETS:
        raise ValueError(f"unknown label set; known: {', '.join(LABEL_SETS)}")
    return name


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


Finite = Annotated[float, AfterValidator(_finite)]


class Query(BaseModel):
    """The query parameters of ``POST /classify`` and ``POST /route``. Any other parameter is an error."""

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
    k: int = Field(5, ge=1, le=MAX_K, description="How many labels to answer with.")

    @property
    def has_budget(self) -> bool:
        """Whether the caller stated a budget of any kind."""
        return self.latency_ms is not None or self.memory_mb is not None or self.min_top1 is not None

    def allowed_s(self, default_latency_ms: float) -> float:
        """Seconds from the end of the body until the answer is due: ``latency_ms`` where it binds, else the service's
        default."""
        binding = self.strict or self.model is None
        return ((self.latency_ms if binding else None) or default_latency_ms) / 1000
