"""``topfive models``: lists networks and their checkpoints."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.commands.console import console
from service.commands.options import open_catalogue


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print what GET /models answers.")] = False,
    untrained: Annotated[bool, typer.Option("--untrained", help="List what serve --untrained would serve.")] = False,
) -> None:
    """List the networks, their checkpoints, and how to get the weights that are missing."""
    from service.http.responses import model_row

    rows = [model_row(c, resident=False) for c in open_catalogue(untrained).checkpoints()]
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
    table.add_column("origin, or size of the download")
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
