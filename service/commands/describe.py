"""``topfive describe``: the layers and needs of a network, a comparison of several, and the ImageNet challenge."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.markup import escape
from rich.table import Table

from models.checkpoints.catalogue import Catalogue, WrongWeightsError
from models.networks.variants import VARIANTS, UnknownModelError
from service.commands.console import console, fail, print_left_out
from service.commands.options import read_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from models.analysis.description import Compared, Description

_MIB = 2**20


def describe(
    names: Annotated[list[str] | None, typer.Argument(help="Variants or variant@label_set.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare networks in one table; without names, all of them.")
    ] = False,
    history: Annotated[
        bool, typer.Option("--history", help="List the winners of the ImageNet challenge by year.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Batch size in the memory table, beside 1. [default: 16]")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Print the largest batch that fits into this much, as in 3GiB.")
    ] = None,
    as_graph: Annotated[
        bool, typer.Option("--as-graph", help="Use the geometry of the ONNX Model Zoo's graph.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw a chart to this PNG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain a network: its layers, parameters, multiply-adds, receptive fields and memory."""
    if compare + history > 1 or (history and names):
        fail("--history stands alone: name networks with or without --compare", 2)
    if not compare and not history and len(names or []) != 1:
        fail("name one network, or several with --compare; topfive models lists them", 2)
    if (compare or history) and (as_graph or memory is not None or batch is not None):
        fail("--as-graph, --memory and --batch are for one network", 2)
    limit, batch = _bytes(memory), batch or 16
    catalogue = Catalogue(read_settings().cache_dir, left_out=print_left_out)
    from models.analysis import description

    rows: list[Compared] = []
    told: Description | None = None
    try:
        checkpoints = [description.of_the_paper(catalogue, name) for name in names or VARIANTS]
        if compare:
            rows = description.compare(checkpoints, description.of_the_paper(catalogue, description.REFERENCE))
        elif not history:
            told = description.describe(checkpoints[0], as_graph=as_graph)
    except (UnknownModelError, WrongWeightsError) as error:
        fail(error)
    if history:
        _history(as_json)
    elif compare:
        _comparison(rows, as_json)
    elif told is not None:
        if as_json:
            _print_json(told.to_json(batch=batch, memory=limit))
        else:
            _layers(told)
            _memory(told, batch, limit)
    if plot is not None:
        from models.analysis import plots

        figure = plots.history_figure() if history else plots.comparison_figure(rows)
        _draw(plots.layers_figure(told) if told is not None else figure, plot, quiet=as_json)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        # ByteSize ignores whatever follows a number and a unit.
        size = int(TypeAdapter(ByteSize).validate_python(text)) if re.fullmatch(r"[\d.]+\s*[a-zA-Z]*", text) else 0
    except ValidationError:
        size = 0
    return size or fail(f"--memory {text}: give bytes, or a number and a unit, as in 3GiB or 800MB", 2)


def _draw(figure: Figure, path: Path, *, quiet: bool) -> None:
    from models.analysis.plots import save

    try:
        save(figure, path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    if not quiet:
        console.print(f"[green]drawn[/] {escape(str(path))}", highlight=False, soft_wrap=True)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))  # noqa: T201


def _layers(told: Description) -> None:
    from models.analysis.layer_table import columns

    variant, checkpoint = told.checkpoint.variant, told.checkpoint
    console.print(f"[bold]{variant.name}[/]  {escape(variant.paper)}", highlight=False)
    console.print(f"checkpoint {checkpoint.name}: {checkpoint.state}", highlight=False)
    if told.geometry is not None:
        console.print(f"geometry: {escape(told.geometry)}", highlight=False)
    table, extra = Table(box=None, pad_edge=False), columns(told.rows)
    for name in ("layer", "type", "patch/stride", "output"):
        table.add_column(name)
    table.add_column("depth", justify="right")
    in_words = not extra and any(row.branches for row in told.rows)
    for name in extra:
        table.add_column(name.replace(" ", "\n"), justify="right")
    if in_words:
        table.add_column("branches")
    for name in ("parameters", "multiply-\nadds, M", "memory,\nKiB", "sees", "stride"):
        table.add_column(name, justify="right")
    for row in told.rows:
        cells = [row.columns.get(name, "") for name in extra]
        if in_words:
            cells.append("\n".join(row.branches))
        table.add_row(
            row.name,
            row.type,
            row.patch,
            "x".join(str(size) for size in (*row.output[1:], row.output[0])),
            str(row.depth or ""),
            *cells,
            f"{row.params:,}" if row.params else "",
            f"{row.multiply_adds / 1e6:,.1f}" if row.multiply_adds else "",
            f"{4 * row.activations / 1024:,.0f}" if row.activations else "",
            f"{row.receptive_field[0]}x{row.receptive_field[1]}",
            str(row.jump[0]),
        )
    analysis = told.analysis
    table.add_section()
    total = (f"{analysis.params:,}", f"{analysis.multiply_adds / 1e6:,.1f}")
    kib = f"{4 * analysis.activations / 1024:,.0f}"
    blanks = [""] * (len(extra) + in_words)
    table.add_row("total", "", "", "", str(analysis.depth), *blanks, *total, kib, "", "", style="bold")
    console.print(table)
    console.print(
        "memory: activations of one picture in float32, the total includes the input; sees (the receptive field) and "
        "stride: in pixels of the picture",
        style="dim",
    )


def _memory(told: Description, batch: int, limit: int | None) -> None:
    from models.analysis.description import PURPOSES
    from models.networks.memory import ELEMENT

    table = Table(box=None, pad_edge=False, title="analytic memory, MiB", title_justify="left")
    table.add_column("")
    batches = sorted({1, batch})
    for n in batches:
        table.add_column(f"batch {n}", justify="right")
    if limit is not None:
        table.add_column(f"largest batch in {ByteSize(limit).human_readable()}", justify="right")
    for purpose in PURPOSES:
        for dtype in ELEMENT:
            needs = told.needs[purpose]
            cells = [f"{needs.bytes(n, dtype, purpose) / _MIB:,.1f}" for n in batches]
            if limit is not None:
                cells.append(str(needs.largest_batch(limit, dtype, purpose) or "none fits"))
            table.add_row(f"{purpose}, {dtype}", *cells)
    console.print()
    console.print(table)
    heads = told.needs["training"].params - told.needs["inference"].params
    note = f", with the auxiliary heads' {heads:,} parameters" if heads else ""
    console.print(f"training: weights, gradients and momentum; activations and their gradients{note}", style="dim")


def _comparison(rows: Sequence[Compared], as_json: bool) -> None:
    if as_json:
        _print_json({"networks": [asdict(row) for row in rows]})
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("network")
    for name in ("year", "depth", "parameters", "/ VGG-16", "multiply-adds", "/ VGG-16", "MB a picture", "/ VGG-16"):
        table.add_column(name, justify="right")
    for name in ("top-1", "top-5"):
        table.add_column(name, justify="right")
    table.add_column("accuracy from")
    for row in rows:
        labels = "" if row.labels == "imagenet1k" else f" ({row.labels})"
        table.add_row(
            row.name,
            str(row.year),
            str(row.depth),
            f"{row.params:,}",
            f"{row.params_ratio:.2g}",
            f"{row.multiply_adds / 1e6:,.1f} M",
            f"{row.multiply_adds_ratio:.2g}",
            f"{row.analytic_bytes / 1e6:,.1f}",
            f"{row.analytic_ratio:.2g}",
            "" if row.top1 is None else f"{row.top1:.2f}",
            "" if row.top5 is None else f"{row.top5:.2f}",
            escape(row.accuracy_source) + labels,
        )
    console.print(table)


def _history(as_json: bool) -> None:
    from models.analysis.history import ILSVRC

    if as_json:
        entries: list[dict[str, Any]] = [asdict(entry) for entry in ILSVRC]
        _print_json({"ilsvrc": entries})
        return
    table = Table(box=None, pad_edge=False)
    for name in ("year", "entry", "top-5 error, %", "here", ""):
        table.add_column(name, justify="right" if "error" in name else "left")
    for entry in ILSVRC:
        table.add_row(str(entry.year), entry.name, f"{entry.top5_error:.1f}", entry.variant or "", entry.note)
    console.print(table)
