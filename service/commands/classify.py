"""``topfive classify``: classifies picture files in this process, without a server."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.commands.console import CANNOT_RUN, console, errors, fail
from service.commands.options import open_catalogue, read_settings, setting
from service.config.settings import Settings

if TYPE_CHECKING:
    from service.domain.classified import Classified
    from service.domain.ensemble import Ensemble
    from service.domain.errors import Failure
    from service.domain.query import Query
    from service.runtime.predictor import Predictor

#: Milliseconds that a picture may take: whoever waits at a terminal ends it with Ctrl-C.
_PATIENCE_MS = 3_600_000.0


def classify(
    model: Annotated[str, typer.Argument(help="Variant, alias, variant@label_set, or ensemble:NAME,NAME.")],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files; - reads one from standard input.")],
    k: Annotated[int, typer.Option("-k", min=1, max=10, help="Labels per picture.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print what POST /classify answers.")] = False,
    untrained: Annotated[bool, typer.Option("--untrained", help="Seeded random weights.")] = False,
    device: Annotated[str | None, setting("device")] = None,
) -> None:
    """Classify pictures without a server."""
    from service.domain.query import Query
    from service.http.responses import to_json
    from service.routing.lookup import find

    catalogue, settings = open_catalogue(untrained), read_settings(device=device)
    try:
        checkpoint = find(catalogue, model)
        contents = [sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes() for path in pictures]
        query = Query(model=model, k=k)
        outcomes = asyncio.run(_classify(catalogue, checkpoint, contents, query, settings))
    except CANNOT_RUN as error:
        fail(error)
    from service.domain.errors import Failure

    if as_json:
        entries = [to_json(outcome, k, bulk=len(outcomes) > 1) for outcome in outcomes]
        print(json.dumps(entries[0] if len(entries) == 1 else {"results": entries}, indent=2))  # noqa: T201
    for path, outcome in zip(pictures, outcomes, strict=True):
        if isinstance(outcome, Failure):
            errors.print(f"[red]{escape(str(path))}[/]: {escape(outcome.detail)}", highlight=False, soft_wrap=True)
        elif not as_json:
            _print_answer(path, outcome, k)
    if any(isinstance(outcome, Failure) for outcome in outcomes):
        raise typer.Exit(1)


async def _classify(
    catalogue: Catalogue, checkpoint: Checkpoint | Ensemble, pictures: list[bytes], query: Query, settings: Settings
) -> list[Classified | Failure]:
    """Loads the networks into this process, and classifies as the service does."""
    from service.assembly.local import local_placement
    from service.config.fleet import Deployment
    from service.domain.ensemble import members_of
    from service.domain.errors import NoPictureError, failure_of
    from service.inference.classifier import Classifier
    from service.routing.router import Router
    from service.telemetry.recorder import RequestMetrics

    members = members_of(checkpoint)
    names = [member.variant.name for member in members]
    placement = local_placement(settings, Deployment(variants=names))
    router = Router(catalogue, placement, settings.model_copy(update={"default_latency_ms": _PATIENCE_MS}))
    classifier = Classifier(router, placement, RequestMetrics(names))
    try:
        for member in members:
            await _load(placement.predictor(member))
        outcomes: list[Classified | Failure] = []
        for picture in pictures:
            if not picture:
                outcomes.append(failure_of(NoPictureError("the file is empty")))
            else:
                outcomes.append(await classifier.classify(picture, query, [checkpoint], time.monotonic()))
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


def _print_answer(path: Path, classified: Classified, k: int) -> None:
    from service.http.responses import answer

    document = answer(classified, k)
    checkpoint = document["checkpoint"]
    note = "" if checkpoint["trained"] else "  [yellow]untrained[/]"
    console.print(f"[bold]{escape(str(path))}[/]  {checkpoint['name']}{note}", highlight=False)
    for label in document["top5"]:
        console.print(f"  {label['probability'] * 100:6.2f} %  {escape(label['label'])}", highlight=False)
