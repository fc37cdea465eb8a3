"""Finds the processes of a run of the service, and ends them.

All processes of a run inherit an environment variable with the run's id, so they are found whatever their name, parent
or port is. Some of Ray's daemons overwrite their environment with their title; those are found by the title,
``ray::...``, and by the session, which the driver leads. So no orphan is overlooked and no other program is ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

#: The environment variable that marks a run's processes.
RUN_ID = "TOPFIVE_RUN_ID"
#: The title of a replica's process begins with this; the application, a colon and the deployment follow.
REPLICA = "ray::ServeReplica:"
#: The command line of a process of a fleet without Ray has this; its role and the service's folder follow.
SOLO = "service.solo.process"
_KILLED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Run:
    """What the processes of one run have in common."""

    id: str
    session: int | None = None
    """The id of the driver's session, which is its process id; None before the driver has started."""


def own_key(run_id: str) -> str:
    """The key with which a service's own commands ask it, where it has keys. The id of a run is random, and only the
    service's user can read it: in its record, and in the environment of its processes."""
    return hashlib.sha256(f"topfive own key {run_id}".encode()).hexdigest()


def of_run(run: Run) -> list[psutil.Process]:
    """The processes of a run, without this one."""
    mark = f"{RUN_ID}={run.id}".encode()
    found = []
    for process in psutil.process_iter():
        if process.pid != os.getpid() and (mark in _environment(process.pid) or _is_daemon(process, run)):
            found.append(process)
    return found


def end_run(run: Run, *, patience_s: float = 1.0) -> int:
    """Ends every process of a run and returns how many there were. Sends SIGTERM, waits for ``patience_s``, then
    kills."""
    ended = 0
    give_up = time.monotonic() + _KILLED_WITHIN_S
    # A process may start another one while it is being ended, so this looks again until none is left. The bound is for
    # processes that hang in the kernel and cannot be killed.
    while (processes := of_run(run)) and time.monotonic() < give_up:
        ended += len(processes)
        _end(processes, patience_s)
        patience_s = 0.2
    return ended


def title_of(process: psutil.Process) -> str:
    """The title that a process has given itself, or its command line; empty if the process has ended."""
    with contextlib.suppress(psutil.Error):
        return "".join(process.cmdline())
    return ""


def is_living(process: psutil.Process) -> bool:
    """Whether a process still runs. A zombie does not."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kills processes and waits until they have ended."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(processes, _KILLED_WITHIN_S)


def holder_of(host: str, port: int) -> str:
    """The program that listens on a port, as in ``nginx (pid 123)``, if this user may know it."""
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
    """The environment of a process; empty for a zombie, another user's process, or one that ends meanwhile. psutil
    cannot read it: Ray's daemons overwrite its beginning with their title, and psutil stops reading there."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def _is_daemon(process: psutil.Process, run: Run) -> bool:
    """Whether a process is one of Ray's daemons in the session of the run."""
    with contextlib.suppress(OSError):
        return os.getsid(process.pid) == run.session and title_of(process).startswith("ray::")
    return False


def _end(processes: Sequence[psutil.Process], patience_s: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    kill(_wait(processes, patience_s))


def _wait(processes: Sequence[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Waits until processes have ended and returns those that have not. A zombie counts as ended: it holds only its
    number until its parent collects it, which in some containers takes a second, or never happens."""
    give_up = time.monotonic() + within_s
    alive = [process for process in processes if is_living(process)]
    while alive and time.monotonic() < give_up:
        time.sleep(0.02)
        alive = [process for process in alive if is_living(process)]
    return alive
