"""A fleet: which Serve deployment hosts which variants on which resources. A TOML file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.variants import VARIANTS, UnknownModelError, find_variant


class FleetError(ValueError):
    """The fleet cannot run; the text says what is wrong with it."""


class Deployment(BaseModel):
    """One ``[[deployment]]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: list[str] = Field(min_length=1)
    """Names or aliases; ``*`` is all of them."""
    replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    """What Ray reserves, in cores; a share of one will do."""
    num_gpus: float = Field(0.0, ge=0)
    engine: Literal["auto", "torch"] = "auto"
    threads: int | None = Field(None, ge=1)
    """Threads of one forward pass on a CPU; all cores by default."""
    max_batch_size: int | None = Field(None, ge=1)
    """Pictures in one forward pass; ``TOPFIVE_MAX_BATCH_SIZE`` by default."""
    max_queue: int = Field(512, ge=1)
    """Pictures waiting for one checkpoint at most."""
    pinned: list[str] = []
    """Variants that stay in memory."""

    def names(self) -> list[str]:
        """The variants, without aliases and wildcards.

        Raises:
            UnknownModelError: one of them does not exist.
        """
        if "*" in self.variants:
            return list(VARIANTS)
        return [find_variant(name).name for name in self.variants]


class Fleet(BaseModel):
    """A whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    deployment: list[Deployment] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_names(self) -> Fleet:
        seen: set[str] = set()
        for deployment in self.deployment:
            for name in (*deployment.names(), *()):
                if name in seen:
                    raise ValueError(f"{name} is in two deployments")
                seen.add(name)
            for name in deployment.pinned:
                find_variant(name)
        return self


def load_fleet(name_or_path: str) -> Fleet:
    """A shipped fleet by its name, or any TOML file by its path.

    Raises:
        FleetError: no such fleet, broken TOML, an unknown key or variant, or a variant in two deployments.
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
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FleetError(f"fleet {name_or_path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    except UnknownModelError as error:
        raise FleetError(f"fleet {name_or_path}: {error}") from error
