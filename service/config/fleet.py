"""Reads a fleet: a TOML file that says which Serve deployment hosts which variants on which resources.

Without an ``[ingress]`` table there is one deployment, whose processes do both HTTP and inference. With one, HTTP has a
deployment of its own, and every ``[[deployment]]`` is a Serve deployment behind it.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, field_validator, model_validator

from models.networks.variants import VARIANTS, find_variant
from models.validation import first_error


class FleetError(ValueError):
    """The fleet cannot run; the text says why."""


class Ingress(BaseModel):
    """The ``[ingress]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: int = Field(1, ge=1)
    num_cpus: float = Field(0.1, ge=0)


class Deployment(BaseModel):
    """One ``[[deployment]]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: list[str] = Field(min_length=1)
    """Names or aliases; ``*`` means all variants."""
    replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    """Cores that Ray reserves for each replica; may be a fraction."""
    num_gpus: float = Field(0.0, ge=0)
    engine: Literal["auto", "onnx_cpu", "torch_cpu", "torch_cuda", "pretend"] = "auto"
    """``auto`` is the fastest on the device: ONNX Runtime on a CPU, torch on a GPU. ``pretend`` computes nothing."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of a forward pass; all cores by default."""
    max_batch_size: int | None = Field(None, ge=1)
    """Most pictures in a forward pass; ``TOPFIVE_MAX_BATCH_SIZE`` by default."""
    max_queue: int = Field(512, ge=1)
    """Most pictures that wait for one checkpoint."""
    max_queue_mb: float = Field(256, gt=0)
    """Most megabytes (10^6 bytes) of pictures that wait for one checkpoint."""
    pinned: list[str] = []
    """Variants that residency never evicts."""

    @property
    def name(self) -> str:
        """The name of the Serve deployment."""
        return "all" if "*" in self.variants else "+".join(self.names())

    @property
    def max_queue_bytes(self) -> int:
        return int(self.max_queue_mb * 1_000_000)

    def names(self) -> list[str]:
        """The variants, without aliases and wildcards.

        Raises:
            UnknownModelError: one of them does not exist.
        """
        if "*" in self.variants:
            return list(VARIANTS)
        return [find_variant(name).name for name in self.variants]


class Fleet(BaseModel):
    """The content of a fleet file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    ray: StrictBool = True
    """Whether Ray Serve runs it, or the service's own supervisor does: fewer processes, a start in seconds."""
    fronts: int | Literal["auto"] | None = None
    """How many fronts do HTTP and decode, in front of a device owner. With 0, one process does everything. ``auto``,
    the default, is what was measured to be best for such a machine."""
    ingress: Ingress | None = None
    deployment: list[Deployment] = Field(min_length=1)

    @field_validator("fronts", mode="before")
    @classmethod
    def _check_fronts(cls, fronts: Any) -> Any:
        """One line for what pydantic has several errors for; it would also take ``true`` for 1."""
        if fronts != "auto" and (type(fronts) is not int or fronts < 0):
            raise ValueError('a number of processes, 0 or more, or "auto"')
        return fronts

    @model_validator(mode="after")
    def _check(self) -> Fleet:
        hosted = Counter(self.names())
        twice = [name for name, times in hosted.items() if times > 1]
        if twice:
            raise ValueError(f"{twice[0]} is hosted twice")
        if self.ingress is not None and not self.ray:
            raise ValueError("an [ingress] table needs Ray Serve: leave ray = false out")
        if self.ingress is not None and self.fronts is not None:
            raise ValueError("fronts stand before one deployment; a fleet with an [ingress] table has ingress replicas")
        if self.ingress is None and len(self.deployment) > 1:
            raise ValueError("several deployments need an [ingress] table in front of them")
        if not self.ray and self.fronts == 0 and self.deployment[0].replicas > 1:
            raise ValueError("without Ray and with fronts = 0 there is one process: leave replicas out")
        for deployment in self.deployment:
            for name in deployment.pinned:
                if find_variant(name).name not in deployment.names():
                    raise ValueError(f"{name} is pinned where it is not hosted")
        return self

    def names(self) -> list[str]:
        """All variants that the fleet hosts."""
        return [name for deployment in self.deployment for name in deployment.names()]


def load_fleet(name_or_path: str) -> Fleet:
    """Loads a shipped fleet by its name, or any TOML file by its path.

    Raises:
        FleetError: no such fleet, broken TOML, an unknown key or variant, or a variant that is hosted twice.
    """
    folder = resources.files("service.deploy.fleets")
    shipped = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    try:
        if name_or_path in shipped:
            text = (folder / f"{name_or_path}.toml").read_text(encoding="utf-8")
        elif Path(name_or_path).is_file():
            text = Path(name_or_path).read_text(encoding="utf-8")
        else:
            raise FleetError(f"there is no fleet {name_or_path!r}; shipped: {', '.join(shipped)}; or give a TOML file")
        return Fleet.model_validate({"name": name_or_path, **tomllib.loads(text)})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FleetError(f"fleet {name_or_path}: {error}") from error
    except ValidationError as error:
        raise FleetError(f"fleet {name_or_path}: {first_error(error)}") from error
