"""``topfive export``: writes a network as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from service.commands.console import CANNOT_RUN, console, fail
from service.commands.options import open_catalogue


def export(
    model: Annotated[str, typer.Argument(help="Variant, alias or variant@label_set.")],
    file: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    untrained: Annotated[bool, typer.Option("--untrained", help="Seeded random weights.")] = False,
) -> None:
    """Write a network as the ONNX graph that is served: 8-bit crops in, classes and probabilities out."""
    catalogue = open_catalogue(untrained)
    try:
        checkpoint = catalogue.find(model)
        from models.onnx.export import export as write

        write(checkpoint, file)
    except CANNOT_RUN as error:
        fail(error)
    console.print(f"[green]written[/] {escape(str(file))}", highlight=False, soft_wrap=True)
