"""``topfive status``: shows the services that run on this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from service.commands.console import console, fail


def status(
    port: Annotated[int | None, typer.Option(help="Show only the service on this port.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show this user's running services on this machine: fleet, deployments, replicas, models."""
    from service.lifecycle.record import FolderError
    from service.lifecycle.status import read_status

    try:
        found = [service for service in read_status() if port in (None, service["port"])]
    except FolderError as error:
        fail(error)
    if as_json:
        print(json.dumps({"services": found}, indent=2))  # noqa: T201
    elif found:
        for service in found:
            _show(service)
    if not found:
        fail("no TopFive service of yours runs on this machine" + (f" on port {port}" if port else ""))


def _show(service: dict[str, Any]) -> None:
    """Prints a service: its address, its deployments with their replicas, and its networks."""
    state = "[green]ready[/]" if service["ready"] else "[yellow]not ready[/]"
    console.print(
        f"[bold]{escape(service['url'])}[/]  {state}  fleet {escape(service['fleet'])}, pid {service['pid']}, "
        f"up {service['up_s']:.0f} s",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for column in ("deployment", "replicas wanted", "replica", "MB", "up (s)"):
        table.add_column(column, justify="left" if column == "deployment" else "right")
    for deployment in service["deployments"]:
        name, wanted = deployment["name"], str(deployment["replicas_wanted"])
        for replica in deployment["replicas"] or [None]:
            cells = (
                ("[red]none[/]", "", "")
                if replica is None
                else (f"pid {replica['pid']}", f"{replica['rss_mb']:.0f}", f"{replica['up_s']:.0f}")
            )
            table.add_row(name, wanted, *cells)
            name = wanted = ""
    console.print(table)
    for row in service["models"]:
        colour = {"ready": "green", "loadable": "yellow"}.get(row["state"], "dim")
        console.print(f"  [{colour}]{row['state']:15}[/] {row['name']}", highlight=False)
