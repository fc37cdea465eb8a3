"""``topfive serve``: runs the service in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from rich.markup import escape

from service.commands.console import errors, fail
from service.commands.options import read_settings, setting
from service.config.settings import API_KEY


def serve(
    host: Annotated[str | None, setting("host")] = None,
    port: Annotated[int | None, setting("port")] = None,
    fleet: Annotated[str | None, setting("fleet")] = None,
    untrained: Annotated[bool | None, setting("untrained", "--untrained/--trained")] = None,
    device: Annotated[str | None, setting("device")] = None,
    precision: Annotated[str | None, setting("precision")] = None,
    decode: Annotated[str | None, setting("decode")] = None,
    max_batch_size: Annotated[int | None, setting("max_batch_size")] = None,
    memory_limit_mb: Annotated[float | None, setting("memory_limit_mb")] = None,
    parked_limit_mb: Annotated[float | None, setting("parked_limit_mb")] = None,
    default_latency_ms: Annotated[float | None, setting("default_latency_ms")] = None,
    labels: Annotated[str | None, setting("labels")] = None,
    max_body_mb: Annotated[float | None, setting("max_body_mb")] = None,
    max_pixels: Annotated[int | None, setting("max_pixels")] = None,
    max_decode_ms: Annotated[float | None, setting("max_decode_ms")] = None,
    max_decode_mb: Annotated[float | None, setting("max_decode_mb")] = None,
    cache_dir: Annotated[Path | None, setting("cache_dir")] = None,
    max_bodies_mb: Annotated[float | None, setting("max_bodies_mb")] = None,
    cors_origins: Annotated[str | None, setting("cors_origins")] = None,
    api_keys: Annotated[Path | None, setting("api_keys")] = None,
    metrics_key: Annotated[bool | None, setting("metrics_key", "--metrics-key/--no-metrics-key")] = None,
    rate_requests: Annotated[str | None, setting("rate_requests")] = None,
    rate_device_s: Annotated[float | None, setting("rate_device_s")] = None,
    mirror: Annotated[str | None, setting("mirror")] = None,
    access_log: Annotated[bool | None, setting("access_log", "--access-log/--no-access-log")] = None,
    log_format: Annotated[str | None, setting("log_format")] = None,
    tracing: Annotated[bool | None, setting("tracing", "--tracing/--no-tracing")] = None,
) -> None:
    """Serve over HTTP until Ctrl-C."""
    options = dict(locals())
    from service.access.keys import KeysError, read_keys
    from service.config.fleet import FleetError
    from service.lifecycle.record import AlreadyServingError, FolderError
    from service.lifecycle.supervisor import StartError
    from service.lifecycle.supervisor import serve as run
    from service.telemetry.tracing import TracingError, check_tracing

    settings = read_settings(**options)
    try:
        if settings.api_keys is None:
            _warn_of_client_key()
            if settings.metrics_key:
                fail("TOPFIVE_METRICS_KEY asks for keys, and TOPFIVE_API_KEYS names no file of them")
        elif not read_keys(settings.api_keys):
            errors.print(f"[yellow]nobody may come in yet[/]: {escape(str(settings.api_keys))} has no keys")
        if settings.tracing:
            check_tracing()
        run(settings, errors)
    except (KeysError, FleetError, AlreadyServingError, FolderError, StartError, TracingError) as error:
        fail(error)


def _warn_of_client_key() -> None:
    """Says that the variable for clients was set and the one for services was not: they differ by a letter."""
    if API_KEY in os.environ:
        errors.print(
            f"[yellow]{API_KEY} is what clients send[/]: a service asks for keys if TOPFIVE_API_KEYS names a file"
        )
