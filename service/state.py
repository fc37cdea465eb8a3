"""The service's own record on this machine: one folder and one lock a port.

The lock is held by the process that answers for the service, and falls with it, however that process ends. So a folder
whose lock can be taken is what an earlier run has left behind, and the run id in it tells which processes to end.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import psutil

from service.processes import Run, end_run

_RECORD = "service.json"
_STOPPING = "stopping"
_CLEARED_WITHIN_S = 10.0


class AlreadyServingError(RuntimeError):
    """A service of ours holds the port."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a running service."""

    run_id: str
    pid: int
    """Of the supervisor."""
    driver: int | None
    """Process id of Ray's driver, which leads a session of its own."""
    host: str
    port: int
    fleet: str
    started_at: float
    """Seconds since the epoch."""

    @property
    def run(self) -> Run:
        return Run(self.run_id, self.driver)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class State:
    """The claim on a port. Its folder also holds HAProxy's files; a socket's path has 108 bytes at most."""

    def __init__(self, record: Record, folder: Path, lock: IO[str]) -> None:
        self.record = record
        self.folder = folder
        self._lock = lock

    @classmethod
    def claim(cls, host: str, port: int, fleet: str) -> State:
        """Takes the port's lock, ends what an earlier run on it left behind, and writes the record.

        Raises:
            AlreadyServingError: a living service of ours has the port.
        """
        folder = base() / str(port)
        give_up = time.monotonic() + _CLEARED_WITHIN_S
        while (lock := _try_lock(port)) is None:
            holder = read_record(folder)
            # Another start of ours may be clearing up what a dead service left behind, and hold its lock meanwhile.
            if (holder is None or not psutil.pid_exists(holder.pid)) and time.monotonic() < give_up:
                time.sleep(0.1)
                continue
            pid = f" (pid {holder.pid})" if holder is not None else ""
            raise AlreadyServingError(f"a TopFive service{pid} is on port {port}; stop it, or choose another --port")
        _clean(folder)
        folder.mkdir(mode=0o700)
        record = Record(uuid.uuid4().hex, os.getpid(), None, host, port, fleet, time.time())
        _write(folder / _RECORD, asdict(record))
        return cls(record, folder, lock)

    def set_driver(self, pid: int) -> None:
        """Notes the driver in the record."""
        self.record = replace(self.record, driver=pid)
        _write(self.folder / _RECORD, asdict(self.record))

    def mark_stopping(self) -> None:
        """Makes every ingress replica answer 503 on /readyz."""
        (self.folder / _STOPPING).touch()

    def release(self) -> None:
        """Removes the folder and lets the lock go. The lock's file stays: removing it would race with a new claim."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def is_stopping(folder: Path) -> bool:
    """Whether the service with that folder is being stopped."""
    return (folder / _STOPPING).exists()


def end_leftovers() -> int:
    """Ends the processes of every run of ours whose service has died. Returns how many there were."""
    ended = 0
    for folder in _folders():
        lock = _try_lock(int(folder.name))
        if lock is not None:
            ended += _clean(folder)
            lock.close()
    return ended


def running() -> list[Record]:
    """The living services of this user on this machine."""
    found = []
    for folder in _folders():
        lock = _try_lock(int(folder.name))
        record = read_record(folder)
        if lock is not None:
            lock.close()
        elif record is not None:
            found.append(record)
    return found


def read_record(folder: Path) -> Record | None:
    """None if there is none, or a damaged one."""
    try:
        return Record(**json.loads((folder / _RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def base() -> Path:
    """The folder of all services of this user, theirs alone."""
    folder = Path(tempfile.gettempdir()) / f"topfive-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def _folders() -> Iterator[Path]:
    return (entry for entry in base().iterdir() if entry.name.isdigit() and entry.is_dir())


def _try_lock(port: int) -> IO[str] | None:
    lock = (base() / f"{port}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _clean(folder: Path) -> int:
    """Ends a dead run's processes and removes its folder; the caller holds its lock."""
    record = read_record(folder)
    ended = end_run(record.run) if record is not None else 0
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def _write(path: Path, fields: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(fields))
    part.replace(path)
