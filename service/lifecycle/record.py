"""The service's own record on this machine: one folder and one lock a port.

The lock is held by the process that answers for the service, and falls with it, however that process ends. So a folder
whose lock can be taken is what an earlier run has left behind, and the run id in it tells which processes to end.

All of it lies in one folder below /tmp, where everybody may write: somebody else may have put a link or a folder of
that name there before. What is used, read or deleted has to be this user's own and no link. The folder is not in
``XDG_RUNTIME_DIR``, which a service that was started in the background would lose when its user logs out, and which a
cron job does not have, so that it would not see the services of its user.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import psutil

from service.config.listening import url
from service.lifecycle.haproxy import STOPPING, STOPPING_LINE
from service.lifecycle.processes import Run, end_run

_RECORD = "service.json"
#: Names the folder of Ray's session.
_RAY_SESSION = "ray-session"
_CLEARED_WITHIN_S = 10.0
#: The longest base folder below which the paths of HAProxy's sockets (``haproxy.py``) fit into 107 bytes: /PORT/NODE/a
#: and a suffix take 77.
_LONGEST_BASE = 30
#: The same for Ray's folder, below which a session's sockets take 64.
_LONGEST_RAY = 43


class AlreadyServingError(RuntimeError):
    """A service of ours holds the port."""


class FolderError(RuntimeError):
    """The folder of the services' records cannot be used; the text says why."""


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
        """Where it answers on this machine."""
        return url(self.host, self.port)


class Claim:
    """The claim on a port. Its folder also holds HAProxy's files."""

    def __init__(self, record: Record, folder: Path, lock: IO[str]) -> None:
        self.record = record
        self.folder = folder
        self._lock = lock

    @classmethod
    def take(cls, host: str, port: int, fleet: str) -> Claim:
        """Takes the port's lock, ends what an earlier run on it left behind, and writes the record.

        Raises:
            AlreadyServingError: a living service of ours has the port.
            FolderError: there is no folder for the record.
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
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError as error:
            lock.close()
            raise FolderError(f"{folder} is in the way and is not removed: it is no folder of a service") from error
        # HAProxy reads it at each start.
        (folder / STOPPING).touch()
        record = Record(uuid.uuid4().hex, os.getpid(), None, host, port, fleet, time.time())
        _write(folder / _RECORD, asdict(record))
        return cls(record, folder, lock)

    def set_driver(self, pid: int) -> None:
        """Notes the driver in the record."""
        self.record = replace(self.record, driver=pid)
        _write(self.folder / _RECORD, asdict(self.record))

    def mark_stopping(self) -> None:
        """Makes every ingress replica answer 503 on /readyz, and every HAProxy that starts from here on 503 on all
        paths."""
        with suppress(FileNotFoundError):  # somebody has removed the folder
            (self.folder / STOPPING).write_text(f"{STOPPING_LINE}\n")

    def touch(self) -> None:
        """Marks everything that the service needs as used: systemd-tmpfiles and its like remove from /tmp what has not
        been for some days."""
        for path in (self.folder.parent, Path(self._lock.name)):
            _touch(path)
        _touch_all(self.folder)
        with suppress(OSError):
            _touch_all(Path((self.folder / _RAY_SESSION).read_text()))

    def release(self) -> None:
        """Removes the folder and lets the lock go. The lock's file stays: removing it would race with a new claim."""
        _remove(self.folder)
        self._lock.close()


def is_stopping(folder: Path) -> bool:
    """Whether the service with that folder is being stopped."""
    try:
        return (folder / STOPPING).stat().st_size > 0
    except OSError:
        return False


def note_ray_session(folder: Path, session: Path) -> None:
    """Notes the folder of Ray's session, for ``Claim.touch``."""
    (folder / _RAY_SESSION).write_text(str(session))


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
    """None if there is none, a damaged one, or one that somebody else has put there."""
    try:
        with open(folder / _RECORD, opener=_open_own) as file:
            return Record(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None


def base() -> Path:
    """The folder of all services of this user, theirs alone.

    Raises:
        FolderError: it cannot be made, or is not this user's own.
    """
    name = f"topfive-{os.getuid()}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > _LONGEST_BASE:
        folder = Path("/tmp") / name  # noqa: S108 - checked below
    elsewhere = f"remove it, or set TMPDIR to a folder whose path has at most {_LONGEST_BASE - len(name) - 1} bytes"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Without following a link, which would lead to a folder that is somebody's, or ours for something else.
        found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise FolderError(f"{folder} {_what_is_wrong(folder, error)}; {elsewhere}") from error
    try:
        status = os.fstat(found)
        if status.st_uid != os.getuid():
            raise FolderError(f"{folder} belongs to somebody else (user {status.st_uid}); {elsewhere}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(found, 0o700)
    finally:
        os.close(found)
    return folder


def ray_folder() -> Path:
    """Where Ray keeps its sessions: its own choice, unless the paths of its sockets would be too long there."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"  # noqa: S108
    return folder if len(os.fsencode(folder)) <= _LONGEST_RAY else Path("/tmp/ray")  # noqa: S108


def _what_is_wrong(folder: Path, error: OSError) -> str:
    if folder.is_symlink():
        return "is a link, which is not followed"
    if folder.exists() and not folder.is_dir():
        return "is not a folder"
    return f"cannot be used: {error.strerror}"


def _folders() -> Iterator[Path]:
    """The folders of services, living and dead: named for a port that has a lock here, and no links."""
    here = base()
    for entry in sorted(here.iterdir()):
        if entry.name.isascii() and entry.name.isdigit() and 0 < int(entry.name) <= 65535 and _is_own_folder(entry):
            lock = here / f"{entry.name}.lock"
            if lock.is_file() and not lock.is_symlink():
                yield entry


def _is_own_folder(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _try_lock(port: int) -> IO[str] | None:
    """Takes the lock of a port -> None if somebody has it.

    Raises:
        FolderError: its file is a link, or somebody else's.
    """
    path = base() / f"{port}.lock"
    try:
        lock = open(path, "w", opener=_open_own)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise FolderError(f"{path} cannot be opened: {error.strerror}; remove it") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _open_own(path: str | Path, flags: int) -> int:
    """Opens a file that is this user's own and neither a link nor a pipe, without changing it before that is known."""
    truncate = flags & os.O_TRUNC
    file = os.open(path, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    status = os.fstat(file)
    # A file with a second name is one that somebody has linked to here.
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink != 1:
        os.close(file)
        raise PermissionError(errno.EPERM, "it is not a plain file of this user's own")
    if truncate:
        os.ftruncate(file, 0)
    return file


def _clean(folder: Path) -> int:
    """Ends a dead run's processes and removes its folder; the caller holds its lock."""
    record = read_record(folder) if _is_own_folder(folder) else None
    ended = end_run(record.run) if record is not None else 0
    _remove(folder)
    return ended


def _remove(folder: Path) -> None:
    """Removes a folder of this user's own with what is in it. A link is left alone, and one within is removed and not
    followed."""
    if _is_own_folder(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path, follow_symlinks=False)


def _touch_all(folder: Path) -> None:
    _touch(folder)
    for where, folders, files in os.walk(folder):  # which follows no links
        for name in (*folders, *files):
            _touch(Path(where, name))


def _write(path: Path, fields: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    with open(part, "w", opener=_open_own) as file:
        json.dump(fields, file)
    part.replace(path)
