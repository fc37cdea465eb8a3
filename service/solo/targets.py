"""Knows where all processes of a service without Ray serve their metrics: each leaves a file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from models.files import atomic_write
from service.config.listening import authority, is_wildcard
from service.telemetry.exposition import MayRead, Target, serve_metrics
from service.telemetry.recorder import set_build_info

_FOLDER = "metrics"


@dataclass(frozen=True, slots=True)
class FolderTargets:
    """Reads the files: a ``telemetry.exposition.Targets``."""

    folder: Path
    """The service's."""

    async def find(self, job: str) -> Sequence[Target]:
        """The living processes, ordered by name and process id. There is no Ray and no HAProxy."""
        if job != "topfive":
            return []
        found = []
        for path in sorted((self.folder / _FOLDER).glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(path.read_text())
                if _began(said["pid"]) == said["began"]:
                    labels = {"deployment": said["name"], "replica": str(said["pid"])}
                    found.append(Target(said["address"], labels))
        return sorted(found, key=lambda target: sorted(target.labels.items()))


def expose(host: str, name: str, folder: Path, may_read: MayRead | None = None) -> FolderTargets:
    """Serves this process's metrics on a port of its own, and leaves a file that says so.

    Args:
        host: where the service listens; its metrics are as public as the service.
        name: of this process: ``owner`` or ``front``.
        folder: the service's.
        may_read: says which requests may read them; by default all.
    """
    set_build_info()
    address = serve_metrics(host, may_read)
    if is_wildcard(host):
        # A wildcard is no address to connect to.
        address = authority(_own_address(), address.rpartition(":")[2])
    metrics = folder / _FOLDER
    metrics.mkdir(exist_ok=True)
    said = {"pid": os.getpid(), "began": _began(os.getpid()), "name": name, "address": address}
    with atomic_write(metrics / f"{name}-{os.getpid()}.json") as part:
        part.write_text(json.dumps(said))
    return FolderTargets(folder)


def _began(pid: int) -> str:
    """When a process began, by the kernel's clock: that tells it from a later one of the same number. A zombie never
    did.

    Raises:
        OSError: there is none of that number.
    """
    # proc_pid_stat(5): the name, in parentheses, may have any characters; field 3 is the state, field 22 the start.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return "never" if fields[0] in ("Z", "X") else fields[19]


def _own_address() -> str:
    """An address of this machine that others can connect to; its loopback address if it has no other."""
    found = [a.address for some in psutil.net_if_addrs().values() for a in some if a.family == socket.AF_INET]
    return next((address for address in found if not address.startswith("127.")), "127.0.0.1")
