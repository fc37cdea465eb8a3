"""The settings: environment variables ``TOPFIVE_*``, which options of ``topfive serve`` override."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.checkpoints.catalogue import cache_dir
from models.images.cost import Price
from service.config.rate import checked_rate

_PREFIX = "TOPFIVE_"
#: Kubernetes puts variables like these into every container for a Service that is named topfive; so do Docker's links.
_LINK = re.compile(r"^(tcp|udp|sctp)://")
_LINK_NAME = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$")
#: A variable of ours that is no setting: the key that clients send (``topfive loadtest``).
API_KEY = "TOPFIVE_API_KEY"
#: From this similarity on, of 0 to 1, a variable counts as a misspelt setting. PROT and PORT have 0.75.
_ALIKE = 0.75
#: As browsers write the header Origin, which is compared letter by letter.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\sA-Z,*]+")


class Settings(BaseSettings):
    """All settings. A field's description is its help text in ``topfive serve --help`` and in the documentation."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to serve on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to serve on.")
    cache_dir: Path = Field(default_factory=cache_dir, description="Where imported weights and exported graphs lie.")
    fleet: str = Field("local", description="Which deployments serve what: a fleet's name, or a TOML file.")
    untrained: bool = Field(False, description="Serve every network with seeded random weights.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of the networks; auto is float32 on a CPU, and chosen for each checkpoint on a GPU.",
    )
    decode: Literal["cpu", "gpu"] = Field(
        "cpu", description="Who decodes JPEG files: cpu, or gpu where it gives the same answers."
    )
    max_batch_size: int | None = Field(
        None, ge=1, le=1024, description="Pictures in one forward pass at most; by default 16, and 128 on a GPU."
    )
    memory_limit_mb: float | None = Field(
        None,
        gt=0,
        description="Device memory for loaded networks, in MB (10^6 bytes); by default 80 % of what is free.",
    )
    parked_limit_mb: float | None = Field(
        None,
        ge=0,
        description="Host memory for the weights of networks that had to leave a GPU, in MB (10^6 bytes); by default "
        "25 % of what is free.",
    )
    default_latency_ms: float = Field(
        30_000, gt=0, le=3_600_000, description="Time a request may take if it does not say."
    )
    labels: Literal["", "imagenet1k", "cifar10", "mnist"] = Field(
        "", description="Label set of requests that name neither model nor labels."
    )
    max_body_mb: float = Field(20, gt=0, description="Largest body, in MB (10^6 bytes).")
    max_bodies_mb: float | None = Field(
        None,
        gt=0,
        description="Memory for the bodies of all requests in a process that does HTTP, in MB (10^6 bytes); by default "
        "ten times the largest body, and never less than four times.",
    )
    max_pixels: int = Field(80_000_000, ge=1, description="Largest picture, width times height.")
    max_decode_ms: float = Field(
        5_000, gt=0, description="The most that decoding a picture may take by its header, in ms."
    )
    max_decode_mb: float = Field(
        340,
        gt=0,
        description="The most memory that decoding may take in a process, in MB (10^6 bytes), for one picture and for "
        "all large ones together.",
    )
    cors_origins: str = Field(
        "",
        description="Web pages that may call the service from a browser: origins such as https://example.com, with "
        "commas between them, or * for all.",
    )
    api_keys: Path | None = Field(
        None,
        description="File of the keys that callers need, as topfive keys writes it; without one, all may classify.",
    )
    metrics_key: bool = Field(False, description="With keys: metrics need one too.")
    rate_requests: Annotated[str, AfterValidator(checked_rate)] | None = Field(
        None, description="Pictures that a caller may send, as in 100/second or 20/second;500/minute."
    )
    rate_device_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Device seconds that a caller may use in a minute."
    )
    mirror: str | None = Field(None, description="http(s):// or file:// folder that pull takes weights from.")
    access_log: bool = Field(False, description="Log one line of JSON a request.")
    log_format: Literal["text", "json"] = Field("text", description="The other log lines: for people, or for programs.")
    tracing: bool = Field(False, description="Send OpenTelemetry spans to where OTEL_EXPORTER_OTLP_ENDPOINT says.")

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_links(cls, value: Any) -> Any:
        """Ignores the address of a Service, as in ``TOPFIVE_PORT=tcp://10.0.0.1:8000``: Kubernetes sets it."""
        return cls.model_fields["port"].default if isinstance(value, str) and _LINK.match(value) else value

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        """Accepts an IPv6 address as it is written in a URL, ``[::1]``."""
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_write_them(cls, value: str) -> str:
        """Refuses what no browser sends as an ``Origin``: a path, a missing scheme, upper case."""
        for origin in _listed(value):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin; write it as https://example.com or https://example.com:8443"
                )
        return value

    @property
    def origins(self) -> list[str]:
        """``cors_origins`` as a list."""
        return _listed(self.cors_origins)

    @field_validator("api_keys")
    @classmethod
    def _wherever_it_is_read(cls, value: Path | None) -> Path | None:
        """Makes the path absolute: the service's processes have other working folders."""
        return None if value is None else value.expanduser().absolute()

    @property
    def most_work(self) -> Price:
        """What decoding a picture may take."""
        return Price(self.max_decode_ms / 1000, int(self.max_decode_mb * 1_000_000))

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1_000_000)

    @property
    def max_bodies_bytes(self) -> int:
        """The memory for all bodies of a process. The largest body takes three times its size while it is parsed."""
        given = 10 * self.max_body_mb if self.max_bodies_mb is None else self.max_bodies_mb
        return int(max(given, 4 * self.max_body_mb) * 1_000_000)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def misspelt(names: Iterable[str]) -> tuple[str, str] | None:
    """The first environment variable whose name looks like a misspelt setting, and the name of that setting. Other
    ``TOPFIVE_*`` variables may belong to other programs and are ignored."""
    known = {field.upper() for field in Settings.model_fields}
    for name in sorted(names):
        ours = name.removeprefix(_PREFIX)
        if not name.startswith(_PREFIX) or name == API_KEY or ours in known or _LINK_NAME.search(name):
            continue
        # People hardly ever get the first letter wrong: REPORT does not mean PORT.
        candidates = [setting for setting in known if setting[:1] == ours[:1]]
        if alike := difflib.get_close_matches(ours, candidates, n=1, cutoff=_ALIKE):
            return name, _PREFIX + alike[0]
    return None
