"""``topfive profile``: measures checkpoints on this device, each in a process of its own, and writes their profiles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from models.networks.variants import UnknownModelError
from service.commands.console import console, errors, fail, print_left_out
from service.commands.options import read_settings
from service.engines import DeviceError
from service.engines.loader import Loader, device_slug, engine_loader
from service.profiling.profiler import ProfilingError, measure_apart
from service.profiling.profiles import Profile, add_profiles, shipped_folder


def profile(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Variants, aliases or variant@label_set; by default all that have weights."),
    ] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Use seeded random weights.")] = False,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of forward passes for each checkpoint.")] = 10.0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", envvar="TOPFIVE_DEVICE")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of a forward pass. [default: all cores]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to add the profiles to, instead of weights/profiles/<device>.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profiles for programs.")] = False,
) -> None:
    """Measure what networks take on this device: forward passes, decoding, loading and memory."""
    settings = read_settings(device=device)
    try:
        loader = engine_loader(
            device=settings.device,
            engine=None,
            precision=settings.precision,
            threads=threads or len(os.sched_getaffinity(0)),
            cache_dir=settings.cache_dir,
            max_batch_size=settings.max_batch_size,
        )
        checkpoints = _named(names or [], Catalogue(settings.cache_dir, untrained=untrained, left_out=print_left_out))
    except (DeviceError, UnknownModelError, WeightsMissingError) as error:
        fail(error)
    slug = device_slug(loader.device)
    path = output or _default_path(settings.cache_dir, slug)
    measured, failures = _measure_all(checkpoints, loader, seconds, path, slug)
    if as_json:
        print(json.dumps({"profiles": [p.model_dump() for p in measured]}, indent=2))  # noqa: T201
    elif measured:
        console.print(_table(measured))
        console.print(f"[green]written[/] {escape(str(path))}", highlight=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def _named(names: list[str], catalogue: Catalogue) -> list[Checkpoint]:
    if not names:
        return [c for c in catalogue.checkpoints() if c.state == "loadable"]
    found = [catalogue.find(name) for name in names]
    for checkpoint in found:
        if checkpoint.state != "loadable":
            raise WeightsMissingError(checkpoint)
    return found


def _default_path(cache_dir: Path, slug: str) -> Path:
    """The folder of the shipped profiles if it is writable, otherwise the cache folder."""
    folder = shipped_folder()
    return (folder if os.access(folder, os.W_OK) else cache_dir / "profiles") / f"{slug}.json"


def _measure_all(
    checkpoints: list[Checkpoint], loader: Loader, seconds: float, path: Path, slug: str
) -> tuple[list[Profile], int]:
    """Measures one checkpoint after the other, since two at once would slow each other down, and writes each profile as
    soon as it is there. Returns the profiles and the number of failures."""
    measured: list[Profile] = []
    failures = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors) as bars:
        task = bars.add_task("", total=len(checkpoints))
        for checkpoint in checkpoints:
            bars.update(task, description=checkpoint.name)
            try:
                profile = measure_apart(checkpoint, loader, seconds=seconds, quick=False)
                add_profiles(path, slug, [profile])
                measured.append(profile)
            except (ProfilingError, OSError) as error:
                failures += 1
                errors.print(f"[red]error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
            bars.advance(task)
    return measured, failures


def _table(profiles: list[Profile]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", no_wrap=True)
    largest = max(size for p in profiles for size in p.forward)
    names = ("p50 ms, one", "p95 ms, one", f"p95 ms, {largest}", "photo decode ms", "load ms", "cold ms", "MB")
    # On a GPU alone.
    parks = any(p.wake_ms is not None for p in profiles)
    for name in (*names, "woken ms") if parks else names:
        table.add_column(name, justify="right")
    chosen = any(p.choice is not None for p in profiles)
    if chosen:
        table.add_column("precision")
    for p in profiles:
        one, most = p.forward[min(p.forward)], p.forward[max(p.forward)]
        cold = "" if p.load_cold_ms is None else f"{p.load_cold_ms:,.0f}"
        figures = (f"{one.p50_ms:.1f}", f"{one.p95_ms:.1f}", f"{most.p95_ms:,.0f}", f"{p.decode['medium'].p50_ms:.1f}")
        more = ["" if p.wake_ms is None else f"{p.wake_ms:,.0f}"] if parks else []
        more += [p.fingerprint.precision] if chosen else []
        table.add_row(
            p.checkpoint, *figures, f"{p.load_cached_ms:,.0f}", cold, f"{p.footprint_bytes / 1e6:,.0f}", *more
        )
    return table
