"""Every setting: environment variables ``TOPFIVE_*``, over which the options of ``topfive serve`` win."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.checkpoints import cache_dir


class Settings(BaseSettings):
    """The description of a field is its help text in ``topfive serve --help`` and in README."""

    model_config = SettingsConfigDict(env_prefix="TOPFIVE_", frozen=True, env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to serve on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to serve on.")
    cache_dir: Path = Field(default_factory=cache_dir, description="Where imported weights and exported graphs lie.")
    fleet: str = Field("local", description="Which deployments serve what: a fleet's name, or a TOML file.")
    untrained: bool = Field(False, description="Serve every network with seeded random weights.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Arithmetic of the networks.")
    max_batch_size: int = Field(16, ge=1, le=1024, description="Pictures in one forward pass at most.")
    memory_limit_mb: float | None = Field(
        None,
        gt=0,
        description="Device memory for loaded networks, in MB (10^6 bytes); by default 80 % of what is free.",
    )
    default_latency_ms: float = Field(
        30_000, gt=0, le=3_600_000, description="Time a request may take if it does not say."
    )
    labels: Literal["", "imagenet1k", "cifar10", "mnist"] = Field(
        "", description="Label set of requests that name neither model nor labels."
    )
    max_body_mb: float = Field(20, gt=0, description="Largest body, in MB (10^6 bytes).")
    max_pixels: int = Field(80_000_000, ge=1, description="Largest picture, width times height.")
    mirror: str | None = Field(None, description="http(s):// or file:// folder that pull takes weights from.")
    access_log: bool = Field(False, description="Log one line of JSON a request.")
    log_format: Literal["text", "json"] = Field("text", description="The other log lines: for people, or for programs.")
    tracing: bool = Field(False, description="Send OpenTelemetry spans to where OTEL_EXPORTER_OTLP_ENDPOINT says.")

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1_000_000)
