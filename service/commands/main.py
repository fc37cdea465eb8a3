"""``topfive``: the command line."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from models.images.preprocess import PRESETS
from models.networks.variants import UnknownModelError, find_variant
from service.commands.console import console, errors, fail, print_left_out, read_settings
from service.commands.describe import describe
from service.commands.evaluate import evaluate
from service.commands.loadtest import loadtest
from service.commands.profile import profile
from service.commands.train import train
from service.config.settings import Settings

if TYPE_CHECKING:
    from service.domain.ensemble import Ensemble
    from service.domain.errors import Failure
    from service.http.schemas import Answer
    from service.runtime.predictor import Predictor

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The classic image networks as a microservice: five labels a picture.",
)
app.command()(describe)
app.command()(profile)
app.command()(loadtest)
app.command()(train)
app.command()(evaluate)
#: Why a network may not run here: UnknownModelError, WrongWeightsError and DeviceError are ValueErrors, missing weights
#: an OSError, a failed export a RuntimeError, an export that does not compute the same an ArithmeticError.
_CANNOT_RUN = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError)


def main() -> None:
    """The entry point of the ``topfive`` command."""
    app()


def _setting(name: str, *flags: str) -> Any:
    """An option of ``serve`` that overrides a setting; its text and default are the setting's own."""
    field = Settings.model_fields[name]
    default = "the user's cache folder" if field.default_factory else str(field.default) or "none"
    # Settings reads the variable, and says in one line what is wrong with it.
    text = f"{field.description} [env var: TOPFIVE_{name.upper()}]"
    return typer.Option(*flags, help=escape(text), show_default=default)


@app.command()
def serve(
    host: Annotated[str | None, _setting("host")] = None,
    port: Annotated[int | None, _setting("port")] = None,
    fleet: Annotated[str | None, _setting("fleet")] = None,
    untrained: Annotated[bool | None, _setting("untrained", "--untrained/--trained")] = None,
    device: Annotated[str | None, _setting("device")] = None,
    precision: Annotated[str | None, _setting("precision")] = None,
    max_batch_size: Annotated[int | None, _setting("max_batch_size")] = None,
    memory_limit_mb: Annotated[float | None, _setting("memory_limit_mb")] = None,
    default_latency_ms: Annotated[float | None, _setting("default_latency_ms")] = None,
    labels: Annotated[str | None, _setting("labels")] = None,
    max_body_mb: Annotated[float | None, _setting("max_body_mb")] = None,
    max_pixels: Annotated[int | None, _setting("max_pixels")] = None,
    cache_dir: Annotated[Path | None, _setting("cache_dir")] = None,
    mirror: Annotated[str | None, _setting("mirror")] = None,
    access_log: Annotated[bool | None, _setting("access_log", "--access-log/--no-access-log")] = None,
    log_format: Annotated[str | None, _setting("log_format")] = None,
    tracing: Annotated[bool | None, _setting("tracing", "--tracing/--no-tracing")] = None,
) -> None:
    """Serve over HTTP until Ctrl-C."""
    options = dict(locals())
    from service.config.fleet import FleetError
    from service.lifecycle.record import AlreadyServingError, FolderError
    from service.lifecycle.supervisor import StartError
    from service.lifecycle.supervisor import serve as run
    from service.telemetry.tracing import TracingError, check_tracing

    settings = read_settings(**options)
    try:
        if settings.tracing:
            check_tracing()
        run(settings, errors)
    except (FleetError, AlreadyServingError, FolderError, StartError, TracingError) as error:
        fail(error)


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="As GET /models answers.")] = False,
    untrained: Annotated[bool, typer.Option("--untrained", help="What serve --untrained would serve.")] = False,
) -> None:
    """List the networks, their checkpoints, and how to get the weights that are missing."""
    from service.http.responses import model_row

    rows = [model_row(c, resident=False) for c in _catalogue(untrained).checkpoints()]
    if as_json:
        print(json.dumps({"models": [row.model_dump() for row in rows]}, indent=2))  # noqa: T201
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("year")
    table.add_column("paper", max_width=30, no_wrap=True, overflow="ellipsis")
    for name in ("parameters", "multiply-adds", "MB a picture", "top-1"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("origin, or what to fetch")
    for row in rows:
        top1 = "" if row.top1 is None else f"{row.top1:.2f}"
        numbers = (f"{row.params:,}", f"{row.multiply_adds / 1e6:,.1f} M", f"{row.analytic_mb:,.1f}", top1)
        colour, note = "green", escape(row.origin)
        if row.state == "weights missing":
            colour = "yellow"
            note = "no public weights" if row.download_mb is None else f"{row.download_mb:,.0f} MB"
        state = f"[{colour}]{row.state}[/]"
        table.add_row(row.name, str(row.year), escape(row.paper), *numbers, state, note)
    console.print(table)
    if any(row.state == "weights missing" for row in rows):
        console.print("weights missing: topfive pull NAME, or offline: topfive import NAME FILE", style="dim")


@app.command()
def classify(
    model: Annotated[str, typer.Argument(help="Variant, alias, variant@label_set, or ensemble:NAME,NAME.")],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files; - reads one from standard input.")],
    k: Annotated[int, typer.Option("-k", min=1, max=10, help="How many labels.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="As POST /classify answers.")] = False,
    untrained: Annotated[bool, typer.Option("--untrained", help="Seeded random weights.")] = False,
    device: Annotated[str | None, _setting("device")] = None,
) -> None:
    """Classify pictures without a server."""
    from service.domain.ensemble import find
    from service.http.responses import to_json

    catalogue, settings = _catalogue(untrained), read_settings(device=device)
    try:
        checkpoint = find(catalogue, model)
        contents = [sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes() for path in pictures]
        outcomes = asyncio.run(_classify(checkpoint, contents, k, settings))
    except _CANNOT_RUN as error:
        fail(error)
    from service.domain.errors import Failure

    if as_json:
        entries = [to_json(outcome, bulk=len(outcomes) > 1) for outcome in outcomes]
        print(json.dumps(entries[0] if len(entries) == 1 else {"results": entries}, indent=2))  # noqa: T201
    for path, outcome in zip(pictures, outcomes, strict=True):
        if isinstance(outcome, Failure):
            errors.print(f"[red]{escape(str(path))}[/]: {escape(outcome.detail)}", highlight=False, soft_wrap=True)
        elif not as_json:
            _print_answer(path, outcome)
    if any(isinstance(outcome, Failure) for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def pull(
    names: Annotated[list[str] | None, typer.Argument(help="Variants or variant@label_set.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that lacks weights.")] = False,
    mirror: Annotated[str | None, _setting("mirror")] = None,
    cache_dir: Annotated[Path | None, _setting("cache_dir")] = None,
) -> None:
    """Fetch public weights, check them, and store them where serve finds them. Resumes what was cut off."""
    from models.install.pull import PullError, check_space, rows_to_pull
    from service.commands.pull import pull_all

    if everything == bool(names):
        fail("name what to pull, or say --all", 2)
    settings = read_settings(mirror=mirror, cache_dir=cache_dir)
    catalogue = Catalogue(settings.cache_dir)
    try:
        rows = rows_to_pull(names or [], catalogue)
        check_space(rows, catalogue)
    except (UnknownModelError, PullError, OSError) as error:
        fail(error)
    if not rows:
        console.print("nothing to pull: every public checkpoint is here")
        return
    failures = pull_all(rows, catalogue, settings.mirror, console, errors)
    if failures:
        raise typer.Exit(1)


@app.command()
def status(
    port: Annotated[int | None, typer.Option(help="Only the service on this port.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show this user's running services on this machine: fleet, deployments, replicas, models."""
    from service.lifecycle.record import FolderError
    from service.lifecycle.status import read_status, show_status

    try:
        found = [service for service in read_status() if port in (None, service["port"])]
    except FolderError as error:
        fail(error)
    if as_json:
        print(json.dumps({"services": found}, indent=2))  # noqa: T201
    elif found:
        for service in found:
            show_status(service, console)
    if not found:
        fail("no TopFive service of yours runs on this machine" + (f" on port {port}" if port else ""))


@app.command(name="import")
def import_(
    name: Annotated[str, typer.Argument(help="Variant that the file holds.")],
    file: Annotated[Path, typer.Argument(help=".safetensors, torchvision's .pth, or the ONNX Model Zoo's .onnx.")],
    labels: Annotated[str | None, typer.Option(help="Label set, if not the variant's own.")] = None,
    preprocess: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = None,
    as_graph: Annotated[bool, typer.Option("--as-graph", help="Keep the zoo graph's own geometry.")] = False,
) -> None:
    """Check a weight file and store it where serve finds it."""
    from models.install.import_ import import_file

    if preprocess is not None and preprocess not in PRESETS:
        fail(f"unknown preprocessing {preprocess!r}; known: {', '.join(PRESETS)}", 2)
    try:
        variant = find_variant(name)
        stored = import_file(variant, file, _catalogue(), label_set=labels, preset=preprocess, as_graph=as_graph)
    except (UnknownModelError, WrongWeightsError, OSError) as error:
        fail(error)
    console.print(f"[green]stored[/] {stored.name}: {escape(str(stored.path))}", highlight=False, soft_wrap=True)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Variant, alias or variant@label_set.")],
    file: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    untrained: Annotated[bool, typer.Option("--untrained", help="Seeded random weights.")] = False,
) -> None:
    """Write a network as the ONNX graph that is served: 8-bit crops in, classes and probabilities out."""
    catalogue = _catalogue(untrained)
    try:
        checkpoint = catalogue.find(model)
        from models.onnx.export import export as write

        write(checkpoint, file)
    except _CANNOT_RUN as error:
        fail(error)
    console.print(f"[green]written[/] {escape(str(file))}", highlight=False, soft_wrap=True)


def _catalogue(untrained: bool = False) -> Catalogue:
    return Catalogue(read_settings().cache_dir, untrained=untrained, left_out=print_left_out)


async def _classify(
    checkpoint: Checkpoint | Ensemble, pictures: list[bytes], k: int, settings: Settings
) -> list[Answer | Failure]:
    """The service's own path, in this process."""
    from service.assembly import local_placement
    from service.config.fleet import Deployment
    from service.domain.ensemble import members_of
    from service.domain.errors import Failure
    from service.domain.snapshot import Decision
    from service.http.responses import answer
    from service.inference.ensemble import predictor

    members = members_of(checkpoint)
    placement = local_placement(settings, Deployment(variants=[member.variant.name for member in members]))
    serving = predictor(placement, checkpoint)
    try:
        for member in members:
            await _load(placement.predictor(member))
        outcomes: list[Answer | Failure] = []
        for picture in pictures:
            started = time.monotonic()
            outcome = await serving.predict(picture, started + 3600)
            if not isinstance(outcome, Failure):
                outcomes.append(answer(outcome, Decision(checkpoint, None), k, time.monotonic() - started))
            else:
                outcomes.append(outcome)
        return outcomes
    finally:
        await placement.close()


async def _load(predictor: Predictor) -> None:
    """Raises what a load raised, as it did: who has a terminal on this machine may see its folders."""
    from service.domain.errors import LoadFailedError
    from service.runtime import load_failures

    load_failures.log.disabled = True
    try:
        await predictor.load()
    except LoadFailedError as error:
        raise error.__cause__ or error from None
    finally:
        load_failures.log.disabled = False


def _print_answer(path: Path, answer: Answer) -> None:
    note = "" if answer.checkpoint.trained else "  [yellow]untrained[/]"
    console.print(f"[bold]{escape(str(path))}[/]  {answer.checkpoint.name}{note}", highlight=False)
    for label in answer.top5:
        console.print(f"  {label.probability * 100:6.2f} %  {escape(label.label)}", highlight=False)


if __name__ == "__main__":
    main()
