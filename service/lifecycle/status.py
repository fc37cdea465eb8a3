"""Reads what runs on this machine: from the records of the services, their processes, and their HTTP."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import httpx
import psutil

from service.config.capacity import Machine, fronts_of, with_device
from service.config.fleet import Fleet, FleetError, load_fleet
from service.lifecycle.processes import REPLICA, SOLO, of_run, own_key, title_of
from service.lifecycle.record import Record, running


def read_status() -> list[dict[str, Any]]:
    """An entry for each running service of this user."""
    return [_service(record) for record in running()]


def _service(record: Record) -> dict[str, Any]:
    ready, models = _ask(record)
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


def _ask(record: Record) -> tuple[bool, list[dict[str, Any]]]:
    try:
        headers = {"Authorization": f"Bearer {own_key(record.run_id)}"}
        with httpx.Client(base_url=record.url, headers=headers, timeout=5, trust_env=False) as client:
            ready = client.get("/readyz").status_code == httpx.codes.OK
            answer = client.get("/models")
            rows = answer.json()["models"] if answer.status_code == httpx.codes.OK else []
    except (httpx.TransportError, ValueError):
        return False, []
    return ready, [{key: row[key] for key in ("name", "state", "resident")} for row in rows]


def _deployments(record: Record) -> list[dict[str, Any]]:
    """The deployments of the fleet with their replicas, which are found by the titles of their processes."""
    wanted: dict[str, int] = {}
    with contextlib.suppress(FleetError):  # the file may have been removed since the start
        machine = Machine.this()
        wanted = _wanted(with_device(load_fleet(record.fleet), record.device, machine), machine)
    living: dict[str, list[dict[str, Any]]] = {}
    for process in of_run(record.run):
        with contextlib.suppress(psutil.Error):
            deployment = _deployment_of(process)
            if deployment is not None:
                living.setdefault(deployment, []).append(
                    {
                        "pid": process.pid,
                        "rss_mb": round(process.memory_info().rss / 1e6, 1),
                        "up_s": round(time.time() - process.create_time(), 1),
                    }
                )
    names = [*wanted, *(name for name in living if name not in wanted)]
    return [{"name": name, "replicas_wanted": wanted.get(name, 0), "replicas": living.get(name, [])} for name in names]


def _wanted(fleet: Fleet, machine: Machine) -> dict[str, int]:
    """How many replicas of each deployment the fleet wants."""
    if fleet.ingress is not None:
        return {"ingress": fleet.ingress.replicas, **{d.name: d.replicas for d in fleet.deployment}}
    fronts, owners = fronts_of(fleet, machine), fleet.deployment[0].replicas
    if fleet.ray:
        return {"ingress": fronts, "owner": owners} if fronts else {"ingress": owners}
    return {"front": fronts, "owner": owners} if fronts else {"whole": 1}


def _deployment_of(process: psutil.Process) -> str | None:
    """The deployment that a process of a service belongs to; None for its other processes."""
    title = title_of(process)
    if title.startswith(REPLICA):
        return title.removeprefix(REPLICA).split(":")[1].split(".")[0]
    _, found, role = title.partition(SOLO)
    return role.partition("/")[0] if found else None
