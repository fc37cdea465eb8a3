"""Which processes of this machine are ours, and how to end them.

Every process that a service starts, and every process that those start, inherits one environment variable with the
run's id: whatever carries it is ours, whatever its name, parent or port. Some of Ray's daemons write their titles over
their environment; they are known by their title, ``ray::...``, in the session that the driver leads. So no stranger is
ended, and no orphan is overlooked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

#: The environment variable that marks a run's processes.
RUN_ID = "TOPFIVE_RUN_ID"


@dataclass(frozen=True, slots=True)
class Run:
    """What marks the processes of one run."""

    id: str
    session: int | None = None
    """The driver's process id, which is the id of the session that it leads; None before it was started."""


def of_run(run: Run) -> list[psutil.Process]:
    """The living processes of a run, this one left out."""
    mark = f"{RUN_ID}={run.id}".encode()
    found = []
    for process in psutil.process_iter():
        if process.pid != os.getpid() and (mark in _environment(process.pid) or _is_daemon(process, run)):
            found.append(process)
    return found


def end_run(run: Run, *, patience_s: float = 1.0) -> int:
    """Ends every process of a run: asks, waits, kills. Returns how many there were."""
    ended = 0
    # A process may have started another while it was being ended, so until none is left.
    while processes := of_run(run):
        ended += len(processes)
        _end(processes, patience_s)
        patience_s = 0.2
    return ended


def holder_of(host: str, port: int) -> str:
    """Who listens on a port, in words: ``nginx (pid 123)``, as far as this user may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.pid is None:
                continue
            address, its_port = tuple(connection.laddr)[:2] or ("", 0)
            wildcards = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
            if its_port == port and (host in wildcards or address in (host, *wildcards)):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"


def _environment(pid: int) -> list[bytes]:
    """The environment that a process began with; nothing for zombies, other users' processes and ones that end
    meanwhile. Read by hand: Ray's daemons write their titles over the beginning of it, where psutil stops reading."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def _is_daemon(process: psutil.Process, run: Run) -> bool:
    """A daemon of Ray in the run's session."""
    with contextlib.suppress(psutil.Error, OSError):
        return os.getsid(process.pid) == run.session and "".join(process.cmdline()).startswith("ray::")
    return False


def _end(processes: Sequence[psutil.Process], patience_s: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
