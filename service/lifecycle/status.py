"""``topfive status``: what runs on this machine, from the services' own records, their processes and their HTTP."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.config.fleet import FleetError, load_fleet
from service.lifecycle.processes import REPLICA, of_run, title_of
from service.lifecycle.record import Record, running


def read_status() -> list[dict[str, Any]]:
    """One entry a living service of this user."""
    return [_service(record) for record in running()]


def show_status(service: dict[str, Any], console: Console) -> None:
    """A service for a person to read."""
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


def _service(record: Record) -> dict[str, Any]:
    ready, models = _ask(record.url)
    return {
        "url": record.url,
        "port": record.port,
        "pid": record.pid,
        "fleet": record.fleet,
        "up_s": round(time.time() - record.started_at, 1),
        "ready": ready,
        "deployments": _deployments(record),
        "models": models,
    }


def _ask(url: str) -> tuple[bool, list[dict[str, Any]]]:
    try:
        with httpx.Client(base_url=url, timeout=5, trust_env=False) as client:
            ready = client.get("/readyz").status_code == httpx.codes.OK
            answer = client.get("/models")
            rows = answer.json()["models"] if answer.status_code == httpx.codes.OK else []
    except (httpx.TransportError, ValueError):
        return False, []
    return ready, [{key: row[key] for key in ("name", "state", "resident")} for row in rows]


def _deployments(record: Record) -> list[dict[str, Any]]:
    """What the fleet asks for, beside the replicas that live. Ray names a replica's process for its deployment."""
    wanted: dict[str, int] = {}
    with contextlib.suppress(FleetError):  # the file may have gone since
        fleet = load_fleet(record.fleet)
        if fleet.ingress is None:
            wanted["ingress"] = fleet.deployment[0].replicas
        else:
            wanted["ingress"] = fleet.ingress.replicas
            wanted |= {d.name: d.replicas for d in fleet.deployment}
    living: dict[str, list[dict[str, Any]]] = {}
    for process in of_run(record.run):
        with contextlib.suppress(psutil.Error):
            title = title_of(process)
            if title.startswith(REPLICA):
                deployment = title.removeprefix(REPLICA).split(":")[1].split(".")[0]
                living.setdefault(deployment, []).append(
                    {
                        "pid": process.pid,
                        "rss_mb": round(process.memory_info().rss / 1e6, 1),
                        "up_s": round(time.time() - process.create_time(), 1),
                    }
                )
    names = [*wanted, *(name for name in living if name not in wanted)]
    return [{"name": name, "replicas_wanted": wanted.get(name, 0), "replicas": living.get(name, [])} for name in names]
