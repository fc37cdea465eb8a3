"""A scenario: what is simulated, read from a TOML file or from options."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.images.outline import Kind, Outline
from models.validation import first_error
from service.domain.query import Query

Arrivals = Literal["poisson", "gamma", "markov", "step", "spike", "trace"]
Retries = Literal["once", "never", "ignore"]

#: The mix of budgets of ``bench/open_loop.py``: interactive, batch-like, frugal, demanding; named networks among them.
MIX = (
    "latency_ms=150",
    "latency_ms=250&memory_mb=250",
    "latency_ms=400",
    "latency_ms=600&min_top1=65",
    "latency_ms=1000",
    "latency_ms=1500&memory_mb=600",
    "model=googlenet&latency_ms=300",
    "model=alexnet&latency_ms=200",
)


class ScenarioError(ValueError):
    """The scenario cannot be simulated; the text says why, in one line."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PictureKind(_Table):
    """Pictures of one kind: what is known of them before they are decoded."""

    kind: Kind = "jpeg"
    width: int = Field(500, ge=1)
    height: int = Field(375, ge=1)
    size: int = Field(60_000, ge=1, alias="bytes")

    @property
    def outline(self) -> Outline:
        """As ``models.images.outline`` reads it from such a file; a JPEG has half as many colour samples as others."""
        pixels = self.width * self.height
        jpeg = self.kind.startswith("jpeg")
        return Outline(self.kind, self.width, self.height, self.size, pixels * (1.5 if jpeg else 3.0))


#: Kinds of pictures that a row of the mix may name.
PICTURES: Mapping[str, PictureKind] = {
    "photograph": PictureKind(),
    "phone": PictureKind(width=4000, height=3000, bytes=3_000_000),
    "thumbnail": PictureKind(width=64, height=64, bytes=2_000),
}


class Budget(_Table):
    """A class of callers: the query that they send, how many of all they are, and their pictures."""

    query: str
    weight: float = Field(1.0, gt=0)
    name: str = ""
    picture: str | PictureKind = "photograph"

    @field_validator("picture")
    @classmethod
    def _known(cls, value: str | PictureKind) -> str | PictureKind:
        if isinstance(value, str) and value not in PICTURES:
            raise ValueError(f"unknown picture {value!r}; known: {', '.join(PICTURES)}, or a table of its own")
        return value

    @field_validator("query")
    @classmethod
    def _readable(cls, value: str) -> str:
        Query.model_validate(dict(parse_qsl(value, strict_parsing=bool(value))))
        return value

    @property
    def asked(self) -> Query:
        """The query as the service reads it."""
        return Query.model_validate(dict(parse_qsl(self.query)))

    @property
    def label(self) -> str:
        """Its name in reports."""
        return self.name or self.query or "no budget"

    @property
    def outline(self) -> Outline:
        """That of its pictures."""
        return (PICTURES[self.picture] if isinstance(self.picture, str) else self.picture).outline


class Device(_Table):
    """A device owner: a device with a queue, a ledger of memory, and the networks that it serves."""

    profile: str = "cpu-2-cores"
    """A shipped profile's name (``weights/profiles``), or the path of a file of ``topfive profile``."""
    variants: tuple[str, ...] = ("*",)
    count: int = Field(1, ge=1)
    """How many such devices."""
    memory_mb: float | None = Field(None, gt=0)
    max_batch_size: int | None = Field(None, ge=1)
    """By default that of the profile."""
    max_queue: int = Field(512, ge=1)
    pinned: tuple[str, ...] = ()
    pace: dict[str, Annotated[float, Field(gt=0)]] = {}
    """By network: what its passes really take, as a multiple of the profile. The router knows the profile alone, and
    learns the rest as it does of a real device."""
    measured: bool = True
    """Whether the service has the profiles too; without them it guesses."""
    slower: float = Field(1.0, gt=0)
    """Passes and loads take so many times what the profile says, which the service does not know: other work shares the
    machine. So do decodes, by the first device's."""
    slower_for_s: float | None = Field(None, gt=0)
    """How long it is slower, from the first arrival on; by default always."""


class Scenario(_Table):
    """All that a simulation depends on."""

    rate: float = Field(10.0, gt=0, description="Pictures a second.")
    seconds: float = Field(60.0, gt=0, description="How long pictures arrive.")
    seed: int = Field(1, ge=0)
    arrivals: Arrivals = "poisson"
    cv: float = Field(4.0, gt=0)
    """Of the gaps between gamma-distributed arrivals."""
    times: float = Field(3.0, gt=0)
    """A step, a spike, and the busy state of Markov-modulated arrivals have so many times the rate."""
    from_s: float = Field(10.0, gt=0)
    for_s: float = Field(10.0, gt=0)
    """When a step or a spike begins, and how long a spike lasts; also how long Markov's calm and busy states last."""
    trace: Path | None = None
    """A CSV file with a column ``seconds``, for ``arrivals = "trace"``; a column ``user`` may name rows of the mix."""
    retries: Retries = "once"
    """Whether refused callers come back when they are told, once; or never; or every second whatever they are told."""
    callers: int = Field(1000, ge=1)
    policy: str = "router"
    default_latency_ms: float = Field(30_000, gt=0)
    spread: bool = True
    """Whether times are drawn; without it each forward pass and each decode takes its mean."""
    fronts: int = Field(1, ge=1)
    cores: int = Field(2, ge=1)
    """How many pictures a front decodes at once."""
    decode_pace: float = Field(1.0, gt=0)
    """What a decode really takes, as a multiple of its price."""
    shared: bool = False
    """Whether there are no other cores: all fronts, and the passes of all CPU devices, are on this one machine."""
    device: tuple[Device, ...] = Field((Device(),), min_length=1)
    mix: tuple[Budget, ...] = Field(tuple(Budget(query=query) for query in MIX), min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Scenario:
        if (self.arrivals == "trace") != (self.trace is not None):
            raise ValueError('arrivals = "trace" and trace = FILE go together')
        labels = [budget.label for budget in self.mix]
        if len(set(labels)) < len(labels):
            raise ValueError("two rows of the mix have the same name")
        return self

    def but(self, **changes: Any) -> Scenario:
        """The same scenario with some fields changed.

        Raises:
            ScenarioError: a value is not possible.
        """
        return _checked({**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def read_scenario(path: Path) -> Scenario:
    """Reads a scenario from a TOML file.

    Raises:
        ScenarioError: it cannot be read, or is no scenario.
    """
    try:
        return _checked(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from error


def _checked(fields: dict[str, Any]) -> Scenario:
    try:
        return Scenario.model_validate(fields)
    except ValidationError as error:
        raise ScenarioError(str(first_error(error))) from error
