"""``topfive evaluate``: measures the accuracy of checkpoints on test pictures, alone and as an ensemble."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from models.checkpoints.accuracies import Accuracy, Weights, add_accuracies, weights_of
from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError, WrongWeightsError, read_card
from models.checkpoints.labels import LABEL_SETS, Label
from models.checkpoints.labels import labels as classes_of
from models.networks.variants import UnknownModelError
from service.commands.console import console, errors, fail, list_unreadable, print_left_out
from service.commands.options import read_settings
from service.domain.ensemble import MOST_MEMBERS
from service.engines import DeviceError
from service.engines.loader import pick_device

if TYPE_CHECKING:
    from models.data.sources import Labelled
    from models.evaluation.evaluate import Evaluation, Plan, Result

#: How many classes without pictures are named.
_NAMED = 10
#: How many classes are shown: those with the largest error.
_SHOWN = 20
#: The default number of crops in a forward pass on a CPU keeps the activations, counted analytically, below _BYTES; it
#: is at least _LEAST and at most _MOST. On a GPU it is _MOST.
_LEAST, _MOST, _BYTES = 16, 256, 500_000_000


def evaluate(
    names: Annotated[
        list[str], typer.Argument(help="Variants, aliases, variant@label_set, or .safetensors files with a card.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder or ZIP file with test/<class>/ (or val/<class>/, or <class>/), classes by word or WordNet id; "
            "or an .npz file with test_images, test_labels.",
        ),
    ],
    labels: Annotated[
        str | None, typer.Option(help=f"Label set: {', '.join(LABEL_SETS)}. [default: the one whose classes DATA has]")
    ] = None,
    crops: Annotated[
        str, typer.Option(help="single, as in the service; 10, as for AlexNet; or 144, as for GoogLeNet.")
    ] = "single",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate this many pictures, spread evenly over all.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the confusion matrix to this PNG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
    untrained: Annotated[bool, typer.Option("--untrained", help="Use seeded random weights.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", envvar="TOPFIVE_DEVICE")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: all cores]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help=f"Crops in a forward pass. [default: {_LEAST} to {_MOST}, by the network]")
    ] = None,
    fail_unreadable: Annotated[
        bool, typer.Option("--fail-unreadable", help="Stop at the first picture that cannot be decoded.")
    ] = False,
    for_serving: Annotated[
        bool, typer.Option("--for-serving", help="Have services route by these accuracies; see min_top1.")
    ] = False,
) -> None:
    """Measure error, calibration and confusion on test pictures; of several networks, their ensemble's too."""
    import torch

    from models.data.errors import DataError
    from models.evaluation.crops import SCHEMES
    from models.evaluation.evaluate import Plan

    scheme = next((each for each in SCHEMES if each == crops), None)
    if scheme is None:
        fail(f"unknown --crops {crops!r}; known: {', '.join(SCHEMES)}", 2)
    if for_serving and (scheme != "single" or untrained or any(name.endswith(".safetensors") for name in names)):
        fail("--for-serving takes trained checkpoints by name (import a file first), by single crops", 2)
    if plot is not None and not plot.absolute().parent.is_dir():
        fail(f"cannot write {plot}: there is no folder {plot.parent}", 2)
    settings, started = read_settings(device=device), time.monotonic()
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    catalogue = Catalogue(settings.cache_dir, untrained=untrained, left_out=print_left_out)
    try:
        checkpoints, pictures = _opened(names, labels, data, catalogue)
        weights = _weights(checkpoints) if for_serving else {}
        where = pick_device(settings.device)
    except (UnknownModelError, DeviceError, DataError) as error:
        fail(error, 2)
    except (OSError, WeightsMissingError) as error:
        fail(error)
    label_set = next(iter(checkpoints.values())).labels
    size = batch_size or (_most_at_once(checkpoints.values()) if where == "cpu" else _MOST)
    plan = Plan(torch.device(where), scheme, limit, size, threads, fail_unreadable)
    try:
        found = _evaluate(checkpoints, pictures, plan)
    except DataError as error:
        fail(error, 2)
    except (OSError, WrongWeightsError, MemoryError, RuntimeError) as error:
        fail(_in_a_line(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)
    _tell(found, label_set, data, plan, time.monotonic() - started, as_json=as_json)
    if for_serving:
        _keep(found, weights, catalogue.accuracies_path, quiet=as_json)
    if plot is not None:
        _draw(found, label_set, plot, quiet=as_json)


def _opened(
    names: list[str], labels: str | None, data: Path, catalogue: Catalogue
) -> tuple[dict[str, Checkpoint], Labelled]:
    """The named checkpoints and the test pictures.

    Without --labels the label set is the smallest one that has all classes of the pictures and for which every named
    checkpoint has weights.
    """
    from models.data.errors import DataError
    from models.data.sources import open_splits

    for label_set in sorted(LABEL_SETS, key=lambda each: len(classes_of(each))) if labels is None else ():
        if all(_has(catalogue, name, label_set) for name in names):
            with suppress(DataError):
                (pictures,) = open_splits(data, label_set, ("test",))
                return _named(names, label_set, catalogue), pictures
    checkpoints = _named(names, labels, catalogue)
    (pictures,) = open_splits(data, next(iter(checkpoints.values())).labels, ("test",))
    return checkpoints, pictures


def _has(catalogue: Catalogue, name: str, label_set: str) -> bool:
    """Whether the checkpoint has weights for a label set."""
    if name.endswith(".safetensors"):
        checkpoint = read_card(Path(name)) if Path(name).is_file() else None
        return checkpoint is not None and checkpoint.labels == label_set
    try:
        return catalogue.find(name, label_set).state == "loadable"
    except UnknownModelError:
        return False


def _named(names: list[str], labels: str | None, catalogue: Catalogue) -> dict[str, Checkpoint]:
    """Loadable checkpoints of one label set, by the name that tables show."""
    if labels not in (None, *LABEL_SETS):
        fail(f"unknown label set {labels!r}; known: {', '.join(LABEL_SETS)}", 2)
    found: dict[str, Checkpoint] = {}
    for name in names:
        if name.endswith(".safetensors"):
            shown, checkpoint = name, _from_file(Path(name), labels)
        else:
            checkpoint = catalogue.find(name, labels)
            shown = checkpoint.name
        if checkpoint.state != "loadable":
            raise WeightsMissingError(checkpoint)
        if shown in found:
            fail(f"{shown} is named twice", 2)
        found[shown] = checkpoint
    first, *others = found
    for other in others:
        if found[other].labels != found[first].labels:
            fail(
                f"{first} has the classes of {found[first].labels}, {other} those of {found[other].labels}; name "
                f"checkpoints of one label set, as in variant@label_set, or say --labels",
                2,
            )
    return found


def _from_file(path: Path, labels: str | None) -> Checkpoint:
    if not path.is_file():
        fail(f"there is no {path}", 2)
    checkpoint = read_card(path)
    if checkpoint is None:
        fail(f"{path} is damaged, or lacks the card that topfive train and topfive import write", 2)
    if labels not in (None, checkpoint.labels):
        fail(f"{path} has the classes of {checkpoint.labels}, not of {labels}", 2)
    return checkpoint


def _most_at_once(checkpoints: Iterable[Checkpoint]) -> int:
    largest = max(checkpoint.costs.activations for checkpoint in checkpoints)
    return min(_MOST, max(_LEAST, _BYTES // (4 * largest)))


def _evaluate(checkpoints: dict[str, Checkpoint], pictures: Labelled, plan: Plan) -> Evaluation:
    import torch

    from models.checkpoints.build import build_checkpoint
    from models.evaluation.evaluate import Member, evaluate

    label_set = next(iter(checkpoints.values())).labels
    members = [
        Member(
            name,
            build_checkpoint(checkpoint).to(plan.device).to(memory_format=torch.channels_last),
            checkpoint.preprocess,
        )
        for name, checkpoint in checkpoints.items()
    ]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("pictures"), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=errors, transient=True) as progress:
        task = progress.add_task("", total=None)

        def watch(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return evaluate(members, pictures, len(classes_of(label_set)), plan, watch)


def _weights(checkpoints: dict[str, Checkpoint]) -> dict[str, Weights]:
    """The weights of the checkpoints, before they are measured: a file that is replaced meanwhile is another."""
    return {shown: weights_of(c.name, c.path) for shown, c in checkpoints.items() if c.path is not None}


def _keep(found: Evaluation, weights: dict[str, Weights], path: Path, *, quiet: bool) -> None:
    """Has services route by what was measured."""
    from models.evaluation.measures import top1, top5

    now = datetime.now(UTC).isoformat(timespec="seconds")
    measured = [
        Accuracy(
            members=tuple(weights[name] for name in result.members),
            top1=round(top1(result.answers).accuracy, 4),
            top5=round(top5(result.answers).accuracy, 4),
            pictures=len(result.answers.classes),
            measured_at=now,
        )
        for result in found.results
        if len(result.members) <= MOST_MEMBERS
    ]
    try:
        add_accuracies(path, measured)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    if not quiet:
        console.print(f"[green]written[/] {escape(str(path))}", highlight=False, soft_wrap=True)


def _tell(found: Evaluation, label_set: str, data: Path, plan: Plan, seconds: float, *, as_json: bool) -> None:
    list_unreadable(found.unreadable)
    classes = classes_of(label_set)
    if as_json:
        from models.evaluation.report import to_json

        run = {"data": str(data), "labels": label_set, "crops": plan.scheme, "device": str(plan.device)}
        document = {**run, "seconds": round(seconds, 2), **to_json(found, classes)}
        print(json.dumps(document, indent=2))  # noqa: T201
        return
    console.print(_summary_table(found))
    console.print()
    console.print(_class_table(found.results[-1], classes))
    if found.absent:
        words = ", ".join(classes[number].word for number in found.absent[:_NAMED])
        more = f" and {len(found.absent) - _NAMED:,} more" if len(found.absent) > _NAMED else ""
        console.print(f"no pictures of: {words}{more}", style="yellow", highlight=False, soft_wrap=True)
    console.print(f"{plan.scheme} crops, {plan.device}, {seconds:,.1f} s", style="dim", highlight=False)


def _summary_table(evaluation: Evaluation) -> Table:
    """A row for each network and, if there are several, one for their ensemble."""
    from models.evaluation.measures import calibration, expected_calibration_error, top1, top5

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("pictures", "crops", "top-1, %", "error (95 % interval)", "top-5, %", "error (95 % interval)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("calibration\nerror, %", justify="right")
    for result in evaluation.results:
        cells = []
        for share in (top1(result.answers), top5(result.answers)):
            low, high = share.interval
            cells += [f"{share.accuracy:.2f}", f"{share.error:.2f} ({low:.2f} to {high:.2f})"]
        calibrated = expected_calibration_error(calibration(result.answers))
        counts = (f"{len(result.answers.classes):,}", f"{result.crops:,}")
        table.add_row(f"[bold]{escape(result.name)}[/]", *counts, *cells, f"{calibrated:.2f}")
    return table


def _class_table(result: Result, classes: tuple[Label, ...]) -> Table:
    """How a network, or the ensemble, did on the pictures of each class."""
    from models.evaluation.measures import by_class, confusion

    rows = by_class(confusion(result.answers, len(classes)))
    name = "class"
    if len(rows) > _SHOWN:
        rows = sorted(rows, key=lambda row: -row.share.error)[:_SHOWN]
        name = f"class, the {_SHOWN} worst"
    table = Table(box=None, pad_edge=False)
    table.add_column(name)
    table.add_column("pictures", justify="right")
    table.add_column("top-1, %", justify="right")
    table.add_column("most often mistaken for")
    for row in rows:
        mistaken = "" if row.mistaken_for is None else f"{escape(classes[row.mistaken_for].word)} ({row.mistakes:,})"
        numbers = (f"{row.share.pictures:,}", f"{row.share.accuracy:.2f}")
        table.add_row(escape(classes[row.number].word), *numbers, mistaken)
    return table


def _draw(found: Evaluation, label_set: str, path: Path, *, quiet: bool) -> None:
    """Draws the confusion matrix of the last result: of the ensemble, if there are several networks."""
    from models.analysis.plots import save
    from models.evaluation.chart import confusion_figure
    from models.evaluation.measures import confusion

    result, classes = found.results[-1], classes_of(label_set)
    matrix = confusion(result.answers, len(classes))
    title = f"{result.name} on {len(result.answers.classes):,} pictures of {label_set}"
    try:
        save(confusion_figure(matrix, classes, title), path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    if not quiet:
        console.print(f"[green]drawn[/] {escape(str(path))}", highlight=False, soft_wrap=True)


def _in_a_line(error: BaseException) -> str:
    """The first line of an error; torch reports a lack of memory in paragraphs."""
    text = str(error) or type(error).__name__
    if "out of memory" in text or isinstance(error, MemoryError):
        return "out of memory; a smaller --batch-size takes less"
    return text.splitlines()[0]
