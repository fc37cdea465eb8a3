"""The record that a service keeps on this machine: one folder and one lock file for each port.

The supervisor holds the lock. The kernel releases it when that process ends, however it ends. A folder whose lock is
free is therefore left over from an earlier run, and the run id in it tells which processes to end.

Everything is in one folder below /tmp, where other users may have put a link or a folder of the same name. So this file
uses, reads and deletes only what belongs to this user and is not a link. ``XDG_RUNTIME_DIR`` is not used: a background
service loses it when its user logs out, and a cron job, which has none, would not see its user's services.
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

import msgspec
import psutil

from models.files import atomic_write
from service.config.listening import url
from service.lifecycle.haproxy import STOPPING, STOPPING_LINE
from service.lifecycle.processes import Run, end_run

_RECORD = "service.json"
#: The file that holds the path of Ray's session folder.
_RAY_SESSION = "ray-session"
_CLEARED_WITHIN_S = 10.0
_LARGEST_PID = 2**31 - 1
#: The longest path of the services' folder. The path of a socket has at most 107 bytes, and those of HAProxy's sockets
#: (``haproxy.py``) need 77 more: /PORT/NODE/a and a suffix.
_LONGEST_BASE = 30
#: The same for Ray's folder, below which the sockets of a session need 64 bytes.
_LONGEST_RAY = 43


class AlreadyServingError(RuntimeError):
    """One of this user's services has the port."""


class FolderError(RuntimeError):
    """The folder of the records cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """What other processes may know of a running service."""

    run_id: str
    pid: int
    """Process id of the supervisor."""
    driver: int | None
    """Process id of the driver, which leads a session of its own."""
    host: str
    port: int
    fleet: str
    started_at: float
    """Seconds since the epoch."""
    device: str = "auto"
    """The setting: on a GPU a fleet may have other processes."""

    @property
    def run(self) -> Run:
        return Run(self.run_id, self.driver)

    @property
    def url(self) -> str:
        """The URL at which the service answers on this machine."""
        return url(self.host, self.port)


class Claim:
    """A service's claim on a port. Its folder also holds HAProxy's files."""

    def __init__(self, record: Record, folder: Path, lock: IO[str]) -> None:
        self.record = record
        self.folder = folder
        self._lock = lock

    @classmethod
    def take(cls, host: str, port: int, fleet: str, device: str = "auto") -> Claim:
        """Takes the lock of the port, ends what an earlier run left behind there, and writes the record.

        Raises:
            AlreadyServingError: one of this user's services runs on the port.
            FolderError: the folder for the record cannot be made.
        """
        folder = base() / str(port)
        give_up = time.monotonic() + _CLEARED_WITHIN_S
        while (lock := _try_lock(port)) is None:
            holder = read_record(folder)
            # Another start of ours may hold the lock while it cleans up after a dead service.
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
            raise FolderError(
                f"{folder} is in the way and is not removed: it is not the folder of a service"
            ) from error
        # HAProxy reads it at each start.
        (folder / STOPPING).touch()
        record = Record(uuid.uuid4().hex, os.getpid(), None, host, port, fleet, time.time(), device)
        _write(folder / _RECORD, asdict(record))
        return cls(record, folder, lock)

    def set_driver(self, pid: int) -> None:
        """Adds the driver to the record."""
        self.record = replace(self.record, driver=pid)
        _write(self.folder / _RECORD, asdict(self.record))

    def mark_stopping(self) -> None:
        """Marks the service as stopping: ingress replicas answer 503 on /readyz, and every HAProxy that starts from now
        on answers 503 on all paths."""
        with suppress(FileNotFoundError):  # somebody has removed the folder
            (self.folder / STOPPING).write_text(f"{STOPPING_LINE}\n")

    def touch(self) -> None:
        """Marks the files of the service and of Ray's session as used. Cleaners such as systemd-tmpfiles remove from
        /tmp what nobody has used for some days."""
        for path in (self.folder.parent, Path(self._lock.name)):
            _touch(path)
        _touch_all(self.folder)
        with suppress(OSError):
            _touch_all(Path((self.folder / _RAY_SESSION).read_text()))

    def release(self) -> None:
        """Removes the folder and releases the lock. The lock file stays: removing it would race with a new claim."""
        _remove(self.folder)
        self._lock.close()


def is_stopping(folder: Path) -> bool:
    """Whether the service with this folder is stopping."""
    try:
        return (folder / STOPPING).stat().st_size > 0
    except OSError:
        return False


def note_ray_session(folder: Path, session: Path) -> None:
    """Records the folder of Ray's session, for ``Claim.touch``."""
    (folder / _RAY_SESSION).write_text(str(session))


def end_leftovers() -> int:
    """Ends the processes of all runs of this user whose supervisor has died. Returns how many processes there were."""
    ended = 0
    for folder in _folders():
        lock = _try_lock(int(folder.name))
        if lock is not None:
            ended += _clean(folder)
            lock.close()
    return ended


def running() -> list[Record]:
    """The records of this user's running services on this machine."""
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
    """The record in a folder; None if there is none, it is damaged, or it is not this user's own file."""
    try:
        with open(folder / _RECORD, "rb", opener=_open_own) as file:
            record = msgspec.json.decode(file.read(), type=Record)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None
    # By the id and the session the processes of a dead run are found and ended.
    pids = (record.pid, 1 if record.driver is None else record.driver)
    is_sound = record.run_id.isalnum() and all(0 < pid <= _LARGEST_PID for pid in pids) and 0 < record.port < 65536
    return record if is_sound else None


def base() -> Path:
    """The folder of this user's services, which no other user can read. Makes it if it is not there.

    Raises:
        FolderError: the folder cannot be made, is a link, or belongs to another user.
    """
    name = f"topfive-{os.getuid()}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > _LONGEST_BASE:
        folder = Path("/tmp") / name  # noqa: S108 - checked below
    elsewhere = f"remove it, or set TMPDIR to a folder whose path has at most {_LONGEST_BASE - len(name) - 1} bytes"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # A link is not followed: it would lead to a folder of somebody else's, or of this user's for something else.
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
    """Where Ray keeps its sessions: the folder that Ray would choose, unless the paths of sockets get too long
    there."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"  # noqa: S108
    return folder if len(os.fsencode(folder)) <= _LONGEST_RAY else Path("/tmp/ray")  # noqa: S108


def _what_is_wrong(folder: Path, error: OSError) -> str:
    if folder.is_symlink():
        return "is a link, which is not followed"
    if folder.exists() and not folder.is_dir():
        return "is not a folder"
    return f"cannot be used: {error.strerror}"


def _folders() -> Iterator[Path]:
    """The folders of services, running or not: this user's own folders that have the name of a port with a lock
    file."""
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
    """Takes the lock of a port; None if another process holds it.

    Raises:
        FolderError: the lock file is a link, or belongs to another user.
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
    """Opens a plain file of this user's own; truncates it only once that is known.

    Raises:
        PermissionError: it is a pipe, has a second name, or belongs to another user.
        OSError: it cannot be opened, or is a link.
    """
    truncate = flags & os.O_TRUNC
    file = os.open(path, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    status = os.fstat(file)
    # A second name means that somebody made a hard link to a file from elsewhere.
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink != 1:
        os.close(file)
        raise PermissionError(errno.EPERM, "it is not a plain file of this user's own")
    if truncate:
        os.ftruncate(file, 0)
    return file


def _clean(folder: Path) -> int:
    """Ends the processes of a dead run and removes its folder. The caller holds the lock."""
    record = read_record(folder) if _is_own_folder(folder) else None
    ended = end_run(record.run) if record is not None else 0
    _remove(folder)
    return ended


def _remove(folder: Path) -> None:
    """Removes a folder of this user's own with all its content. Links in it are removed and not followed; if the folder
    itself is a link, nothing happens."""
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
    """Writes JSON so that readers see the old record or the new one."""
    with atomic_write(path, mode=0o600) as part:
        part.write_text(json.dumps(fields))
