"""``topfive train``: trains a network on a data set and writes a checkpoint with its card."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.checkpoints.labels import LABEL_SETS
from models.networks.variants import UnknownModelError, Variant, find_variant
from service.commands.console import console, errors, fail, list_unreadable
from service.commands.options import read_settings
from service.engines import DeviceError
from service.engines.loader import pick_device

if TYPE_CHECKING:
    from models.training.dataset import DataSet
    from models.training.recipes import Recipe
    from models.training.run import Run


def train(
    name: Annotated[str, typer.Argument(help="Variant or alias.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder or ZIP file with train/<class>/ and test/<class>/ (or val/), classes by word or WordNet id; "
            "or an .npz file with train_images, train_labels, test_images, test_labels.",
        ),
    ],
    labels: Annotated[str, typer.Option(help=f"Label set: {', '.join(LABEL_SETS)}.")],
    out: Annotated[Path | None, typer.Option(help="Checkpoint to write. [default: NAME-LABELS.safetensors]")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="File from which an interrupted run resumes; removed at the end. [default: OUT.state]"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Instead of the recipe's.")] = None,
    peak_rate: Annotated[
        float | None, typer.Option(min=0, help="Highest learning rate, instead of the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    aux_heads: Annotated[
        bool | None,
        typer.Option("--aux-heads/--no-aux-heads", help="Train the auxiliary heads too, if the network has them."),
    ] = None,
    half: Annotated[
        bool | None, typer.Option("--half/--no-half", help="Write float16, or float32, instead of the recipe's.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; the result depends on the number. [default: all cores]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", envvar="TOPFIVE_DEVICE")] = None,
    fail_unreadable: Annotated[
        bool, typer.Option("--fail-unreadable", help="Stop at the first picture that cannot be decoded.")
    ] = False,
) -> None:
    """Train a network by its recipe; resumes an interrupted run from its state file."""
    import torch

    from models.data.errors import DataError
    from models.training.errors import RecipeError, TrainingError

    variant = _variant(name, labels)
    recipe = _recipe(variant, labels, epochs, batch_size, peak_rate, seed, aux_heads, half)
    out = out or Path(f"{variant.name}-{labels}.safetensors")
    state = state or out.with_name(out.name + ".state")
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    # Arithmetic on subnormal numbers (gradients below 1e-38) would slow a CPU down a hundredfold.
    torch.set_flush_denormal(True)
    try:
        from models.training.run import Run

        where = torch.device(pick_device(read_settings(device=device).device))
        pictures = _read(data, labels, recipe, fail_unreadable)
        run = Run(variant, labels, recipe, pictures, where, state)
        _train(run, out)
        _finish(run, out)
    except (DataError, DeviceError, RecipeError) as error:
        fail(error, 2)
    except TrainingError as error:
        fail(error)
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename or out}{_kept(state)}")
    except KeyboardInterrupt:
        fail(f"interrupted{_kept(state)}", 130)


def _kept(state: Path) -> str:
    if not state.exists():
        return "; no epoch was finished"
    return f"; the finished epochs are in {state}, and the same command resumes from there"


def _variant(name: str, labels: str) -> Variant:
    if labels not in LABEL_SETS:
        fail(f"unknown label set {labels!r}; known: {', '.join(LABEL_SETS)}", 2)
    try:
        return find_variant(name)
    except UnknownModelError as error:
        fail(error, 2)


def _recipe(
    variant: Variant,
    labels: str,
    epochs: int | None,
    batch_size: int | None,
    peak_rate: float | None,
    seed: int | None,
    aux_heads: bool | None,
    half: bool | None,
) -> Recipe:
    from models.training.recipes import recipe_for

    if aux_heads and not variant.has_aux_heads:
        fail(f"{variant.name} has no auxiliary heads", 2)
    given: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "peak_rate": peak_rate,
        "seed": seed,
        "aux_heads": aux_heads,
        "half": half,
    }
    recipe = recipe_for(variant, labels)
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})


def _read(path: Path, labels: str, recipe: Recipe, fail_unreadable: bool) -> DataSet:
    from models.images.preprocess import PRESETS
    from models.training.dataset import read_data

    columns = (TextColumn("reading pictures"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("", total=None)
        found = read_data(
            path,
            labels,
            PRESETS[recipe.preset],
            keep=recipe.region is None,
            fail_unreadable=fail_unreadable,
            watch=lambda done, total: progress.update(task, completed=done, total=total),
        )
    list_unreadable(found.unreadable)
    return found


def _train(run: Run, out: Path) -> None:
    """Trains the epochs that are left; prints a line and writes the curves after each."""
    from models.training.curves import write_curves
    from models.training.run import Step

    recipe, data, title = run.recipe, run.data, f"{run.variant.name}@{run.label_set}"
    counts = f"{len(data.train):,} pictures, {len(data.test):,} to test"
    errors.print(f"{run.variant.name} on {counts}: {recipe}", highlight=False, soft_wrap=True)
    if run.history:
        errors.print(f"resuming after epoch {len(run.history)}, from {run.state}", highlight=False, soft_wrap=True)
        # The last run may have ended after it wrote the state and before it wrote the curves.
        write_curves(out.with_suffix(".csv"), run.history, title)
    with _progress(run) as (progress, task):

        def watch(step: Step) -> None:
            told = f"epoch {step.epoch}/{recipe.epochs}  loss {step.loss:.3f}  top-1 {step.top1:.1f} %"
            progress.update(task, completed=step.step, state=told)

        for epoch in run.epochs(watch):
            write_curves(out.with_suffix(".csv"), run.history, title)
            progress.console.print(
                f"epoch {epoch.number}/{recipe.epochs}: loss {epoch.loss:.4f}, top-1 {epoch.training_top1:.2f} % in "
                f"training, {epoch.test_top1:.2f} % in test (top-5 {epoch.test_top5:.2f} %)",
                highlight=False,
                soft_wrap=True,
            )


@contextmanager
def _progress(run: Run) -> Iterator[tuple[Progress, Any]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # The time left follows from the speed of ten minutes, which includes the tests between epochs.
    with Progress(*columns, console=errors, speed_estimate_period=600) as progress:
        total, done = run.recipe.epochs * run.steps, len(run.history) * run.steps
        yield progress, progress.add_task(run.variant.name, total=total, completed=done, state="")


def _finish(run: Run, out: Path) -> None:
    from models.analysis.description import counted
    from models.checkpoints.catalogue import Checkpoint
    from models.install.import_ import write_checkpoint

    trained = run.finish()
    recipe, data = run.recipe, run.data
    checkpoint = Checkpoint(
        variant=run.variant,
        labels=run.label_set,
        origin=f"trained by topfive train on {len(data.train):,} pictures of {run.label_set}",
        preprocess=run.preprocess,
        top1=round(trained.accuracy.top1, 2),
        top5=round(trained.accuracy.top5, 2),
        accuracy_source=f"measured on {len(data.test):,} test pictures",
        recipe=f"{recipe}; data sha256 {data.digest}",
    )
    write_checkpoint(out, trained.network, counted(checkpoint), half=recipe.half)
    run.state.unlink(missing_ok=True)
    top1, top5 = trained.accuracy
    console.print(
        f"[green]written[/] {escape(str(out))}: top-1 {top1:.2f} %, top-5 {top5:.2f} %. To serve it: topfive import "
        f"{run.variant.name} {escape(str(out))}",
        highlight=False,
        soft_wrap=True,
    )
