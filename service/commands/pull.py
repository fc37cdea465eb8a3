"""``topfive pull``: fetches public weights, several files at a time, with a progress bar each."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from models.checkpoints.manifest import ManifestRow
from models.networks.variants import UnknownModelError
from service.commands.console import console, errors, fail
from service.commands.options import read_settings, setting

_AT_ONCE = 4


def pull(
    names: Annotated[list[str] | None, typer.Argument(help="Variants or variant@label_set.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every checkpoint that lacks weights.")] = False,
    mirror: Annotated[str | None, setting("mirror")] = None,
    cache_dir: Annotated[Path | None, setting("cache_dir")] = None,
) -> None:
    """Fetch public weights, check them, and store them where serve finds them. Resumes interrupted downloads."""
    from models.install.pull import PullError, check_space, rows_to_pull

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
    failures = _pull_all(rows, catalogue, settings.mirror)
    if failures:
        raise typer.Exit(1)


def _finished(running: Mapping[Future[Checkpoint], ManifestRow], stop: threading.Event) -> Iterator[Future[Checkpoint]]:
    """Yields downloads as they finish. On Ctrl-C it cancels those that have not begun and sets ``stop``, at which the
    others end after the bytes that they are reading."""
    try:
        yield from as_completed(running)
    except KeyboardInterrupt:
        stop.set()
        for future in running:
            future.cancel()
        yield from (future for future in as_completed(running) if not future.cancelled())


def _pull_all(rows: Sequence[ManifestRow], catalogue: Catalogue, mirror: str | None) -> int:
    """Pulls every row and returns how many failed; a failure does not stop the others."""
    from models.install.pull import PullError, pull

    failures = 0
    stop = threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=errors) as bars, ThreadPoolExecutor(_AT_ONCE) as pool:
        tasks: dict[str | None, TaskID] = {row.url: bars.add_task(row.variant, total=row.size) for row in rows}

        def progress(row: ManifestRow, done: int) -> None:
            if stop.is_set():
                raise PullError("interrupted; the next pull resumes from what has been fetched")
            bars.update(tasks[row.url], completed=done)

        running = {pool.submit(pull, row, catalogue, mirror=mirror, progress=progress): row for row in rows}
        for future in _finished(running, stop):
            row = running[future]
            try:
                stored = future.result()
            except (PullError, WrongWeightsError, OSError) as error:
                failures += 1
                bars.update(tasks[row.url], description=f"[red]{row.variant}[/]")
                errors.print(f"[red]error[/]: {row.variant}: {escape(str(error))}", highlight=False, soft_wrap=True)
            else:
                bars.update(tasks[row.url], description=f"[green]{row.variant}[/]")
                console.print(
                    f"[green]stored[/] {stored.name}: {escape(str(stored.path))}", highlight=False, soft_wrap=True
                )
    return failures
