"""``topfive import``: checks a weight file and stores it in the cache folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from models.checkpoints.catalogue import WrongWeightsError
from models.images.preprocess import PRESETS
from models.networks.variants import UnknownModelError, find_variant
from service.commands.console import console, fail
from service.commands.options import open_catalogue


def import_(
    name: Annotated[str, typer.Argument(help="Variant whose weights the file holds.")],
    file: Annotated[Path, typer.Argument(help=".safetensors, torchvision's .pth, or the ONNX Model Zoo's .onnx.")],
    labels: Annotated[str | None, typer.Option(help="Label set; by default the variant's own.")] = None,
    preprocess: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = None,
    as_graph: Annotated[
        bool, typer.Option("--as-graph", help="Keep the geometry of the ONNX Model Zoo's graph.")
    ] = False,
) -> None:
    """Check a weight file and store it where serve finds it."""
    from models.install.import_ import import_file

    if preprocess is not None and preprocess not in PRESETS:
        fail(f"unknown preprocessing {preprocess!r}; known: {', '.join(PRESETS)}", 2)
    try:
        variant = find_variant(name)
        stored = import_file(variant, file, open_catalogue(), label_set=labels, preset=preprocess, as_graph=as_graph)
    except (UnknownModelError, WrongWeightsError, OSError) as error:
        fail(error)
    console.print(f"[green]stored[/] {stored.name}: {escape(str(stored.path))}", highlight=False, soft_wrap=True)
