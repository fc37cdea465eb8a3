"""The command: draws every dashboard with the data that a Prometheus has of the last minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from docs.render.picture import draw
from docs.render.prometheus import Prometheus, PrometheusError
from docs.render.queries import FOLDER, Window, dashboards
from service.commands.console import console, errors, fail


def render(
    prometheus: Annotated[str, typer.Option(help="URL of Prometheus.")] = "http://127.0.0.1:9090",
    minutes: Annotated[float, typer.Option(min=0.5, help="Minutes of the past to show.")] = 15,
    step: Annotated[float, typer.Option(min=1, help="Seconds between two values.")] = 5,
    rate_interval: Annotated[float, typer.Option(min=1, help="Window of rates in seconds: four scrapes.")] = 20,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs/images"),
    folder: Annotated[Path, typer.Option("--dashboards", help="Folder with the dashboards.")] = FOLDER,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if a panel has no data.")] = False,
) -> None:
    """Draw the dashboards as pictures, one PNG each, from a running Prometheus."""
    end = time.time()
    window = Window(end - minutes * 60, end, step, rate_interval)
    without_data = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        with Prometheus(prometheus) as source:
            for name, dashboard in dashboards(folder).items():
                path = out / f"dashboard-{name}.png"
                without_data += [f"{dashboard['title']}: {title}" for title in draw(dashboard, source, window, path)]
                console.print(f"[green]written[/] {escape(str(path))}", highlight=False, soft_wrap=True)
    except (PrometheusError, OSError, ValueError) as error:
        fail(error)
    for title in without_data:
        errors.print(f"[yellow]no data[/]: {escape(title)}", highlight=False, soft_wrap=True)
    if without_data and strict:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(render)
