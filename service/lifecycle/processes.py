"""Which processes of this machine are ours, and how to end them.

Every process that a service starts, and every process that those start, inherits one environment variable with the
run's id: whatever carries it is ours, whatever its name, parent or port. Some of Ray's daemons write their titles over
their environment; they are known by their title, ``ray::...``, in the session that the driver leads. So no stranger is
ended, and no orphan is overlooked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

#: The environment variable that marks a run's processes.
RUN_ID = "TOPFIVE_RUN_ID"
#: How the title of a replica's process begins; the application, ``#`` and its deployment follow.
REPLICA = "ray::ServeReplica:"
_KILLED_WITHIN_S = 5.0


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
    give_up = time.monotonic() + _KILLED_WITHIN_S
    # A process may have started another while it was being ended, so until none is left; one that hangs in the kernel
    # cannot be ended.
    while (processes := of_run(run)) and time.monotonic() < give_up:
        ended += len(processes)
        _end(processes, patience_s)
        patience_s = 0.2
    return ended


def title_of(process: psutil.Process) -> str:
    """The title that a process has given itself, or its command line; nothing for one that has ended."""
    with contextlib.suppress(psutil.Error):
        return "".join(process.cmdline())
    return ""


def is_living(process: psutil.Process) -> bool:
    """Whether a process still runs, and is no zombie."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kills processes, and waits until they have ended."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(processes, _KILLED_WITHIN_S)


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
    with contextlib.suppress(OSError):
        return os.getsid(process.pid) == run.session and title_of(process).startswith("ray::")
    return False


def _end(processes: Sequence[psutil.Process], patience_s: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    kill(_wait(processes, patience_s))


def _wait(processes: Sequence[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Waits until processes have ended -> those that have not. A zombie has: it holds nothing but its number, until its
    parent looks, which in some containers is once a second, or never."""
    give_up = time.monotonic() + within_s
    alive = [process for process in processes if is_living(process)]
    while alive and time.monotonic() < give_up:
        time.sleep(0.02)
        alive = [process for process in alive if is_living(process)]
    return alive
