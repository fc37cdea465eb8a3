"""Exported graphs on disk, so that serving a checkpoint again needs no torch.

The name of a graph has its checkpoint and a digest of the weights, the card, the code of ``models`` and torch's
version. A missing graph is exported in a separate process, which keeps torch, 300 MB and seconds of importing, out of
the server's.

If the cache cannot take a graph (the disk is full, the folder is read-only), graphs go to a folder of this run below
the system's temporary one, which the processes of one service share. Each of them holds a lock on it, which the system
releases when the process ends, so that ``clear_unused_graphs`` knows which folders are unused.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError, WrongWeightsError, card

#: How long an export may take. VGG-19 takes seconds, but a machine short of memory may swap.
_EXPORT_WITHIN_S = 300.0
#: Older graphs of a checkpoint that were not loaded for this time are removed when a new one is exported.
_STALE_S = 24 * 3600.0
#: Exit statuses of the exporting process. Its last line says what is wrong; with ``OS_ERROR`` it begins with the errno.
WRONG_WEIGHTS, WEIGHTS_MISSING, OS_ERROR, OUT_OF_MEMORY = 3, 4, 5, 6
#: Errors after which another folder is tried.
_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
    errno.ENOENT, errno.EIO, errno.ENAMETOOLONG, errno.EMLINK,
}  # fmt: skip
#: The processes of one service have the same value in this variable (``service/lifecycle/processes.py``).
_RUN_ID = "TOPFIVE_RUN_ID"
_PREFIX = "topfive-graphs-"

log = logging.getLogger(__name__)


class ExportError(RuntimeError):
    """A graph could not be exported, and the weights are not the reason; the text says why in one line."""


class KilledError(ExportError):
    """The exporting process was ended by a signal, as the system does when memory is short."""


class Damaged(NamedTuple):
    """A graph file that cannot be parsed."""

    path: Path
    inode: int
    """The inode of the damaged file: another process may have replaced it since."""

    @classmethod
    def at(cls, path: Path) -> Damaged:
        return cls(path, path.stat().st_ino)

    def is_there(self) -> bool:
        """Whether the damaged file is still there."""
        try:
            return self.path.stat().st_ino == self.inode
        except FileNotFoundError:
            return False


def cached_graph(checkpoint: Checkpoint, cache_dir: Path, *, damaged: Damaged | None = None) -> Path:
    """The file with the graph of a checkpoint, exported first if need be. Blocks.

    Args:
        checkpoint: a loadable one.
        cache_dir: graphs are kept below it; if it cannot be written to, in the run's own folder.
        damaged: a graph that could not be parsed; a new one replaces it.

    Raises:
        WeightsMissingError, WrongWeightsError: see ``checkpoints.build.build_checkpoint``.
        OSError: the weights cannot be read, or no folder can take the graph.
        MemoryError: memory was short.
        ExportError: the export failed for another reason.
    """
    if checkpoint.state != "loadable":
        raise WeightsMissingError(checkpoint)
    path = graph_path(checkpoint, cache_dir)
    here = (folder / path.name for folder in (path.parent, *_own_folders))
    found = next((file for file in here if _is_whole(file, damaged)), None)
    if found is None:
        found = _export_somewhere(checkpoint, cache_dir, path, damaged)
    with contextlib.suppress(OSError):
        found.touch()
    return found


def _is_whole(file: Path, damaged: Damaged | None) -> bool:
    return file.is_file() and not (damaged is not None and damaged.path == file and damaged.is_there())


def _export_somewhere(checkpoint: Checkpoint, cache_dir: Path, path: Path, damaged: Damaged | None) -> Path:
    """Exports into the cache, or else into the run's own folder. Each try is a whole export, so a cache that failed
    once is not tried again."""
    if not _own_folders:
        try:
            return _export_once(checkpoint, cache_dir, path, damaged)
        except WeightsMissingError:
            raise
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            _make_own_folder(path.parent, error)
    return _export_once(checkpoint, cache_dir, _own_folders[0] / path.name, damaged)


def _export_once(checkpoint: Checkpoint, cache_dir: Path, path: Path, damaged: Damaged | None) -> Path:
    """Exports, unless another process has done so meanwhile: replicas that start together often need the same graph,
    and an export takes several times the memory of the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "export.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(path, damaged):
            export_apart(checkpoint, cache_dir, path)
            _forget_others(path)
            if graph_path(checkpoint, cache_dir).name != path.name:
                # The exported weights may be the old ones or the new ones.
                path.unlink()
                raise ExportError(f"the weights of {checkpoint.name} were replaced while they were exported")
    return path


#: The run's own folder, if it was needed.
_own_folders: list[Path] = []


def _make_own_folder(instead_of: Path, why: OSError) -> None:
    """Makes the run's own folder for graphs.

    Raises:
        OSError: it cannot be made either; the error is ``why``.
    """
    run = os.environ.get(_RUN_ID)
    try:
        folder = _locked_folder(f"{_PREFIX}{os.getuid()}-{run or uuid.uuid4().hex}")
    except OSError as error:
        raise why from error
    log.warning(
        "graphs cannot be kept in %s (%s); those of this run are in %s, and the next start makes them again",
        instead_of,
        os.strerror(why.errno or 0),
        folder,
    )
    _own_folders.append(folder)
    if run is None:
        # Other processes of a service may still use the folder; outside a service there are none.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _locked_folder(name: str) -> Path:
    """Makes a folder in the temporary one and locks it until this process ends."""
    folder = Path(tempfile.gettempdir()) / name
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_uid != os.getuid():
            raise PermissionError(errno.EACCES, f"{folder} belongs to somebody else")
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_ino == os.fstat(handle).st_ino:
                return folder
        os.close(handle)  # another process has removed the folder before it was locked


def clear_unused_graphs() -> int:
    """Removes the graph folders of runs that have ended, however they ended. Returns how many."""
    cleared = 0
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                cleared += _clear_if_unused(folder)
    return cleared


def _clear_if_unused(folder: Path) -> bool:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return False
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def graph_path(checkpoint: Checkpoint, cache_dir: Path) -> Path:
    """Where the graph of a checkpoint is kept, whether it is there or not.

    Raises:
        WeightsMissingError: the file with the weights is gone.
    """
    digest = hashlib.sha256(_code().encode())
    digest.update(card(checkpoint)["topfive"].encode())
    if checkpoint.path is not None:
        try:
            with checkpoint.path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError as error:
            raise WeightsMissingError(checkpoint) from error
    return cache_dir / "graphs" / f"{checkpoint.name}-{digest.hexdigest()[:16]}.onnx"


@functools.cache
def _code() -> str:
    """A digest of torch's version and of all code in ``models``; a list of files would be forgotten when it changes."""
    digest = hashlib.sha256()
    digest.update(metadata.version("torch").encode())
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def export_apart(checkpoint: Checkpoint, cache_dir: Path, path: Path) -> None:
    """Exports a graph in a separate process, whole or not at all. Raises what ``cached_graph`` raises."""
    command = [sys.executable, "-m", "models.onnx.export", checkpoint.variant.name, "--labels", checkpoint.labels]
    command += ["--cache-dir", str(cache_dir), "--output", str(path)]
    if not checkpoint.trained:
        command.append("--untrained")
    # Threads that spin while they wait would take cores from the processes that serve.
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    try:
        done = subprocess.run(  # noqa: S603
            command, env=env, capture_output=True, text=True, timeout=_EXPORT_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"exporting {checkpoint.name} took more than {_EXPORT_WITHIN_S:.0f} s") from error
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    if done.returncode == WRONG_WEIGHTS:
        raise WrongWeightsError(last)
    if done.returncode == WEIGHTS_MISSING:
        raise WeightsMissingError(checkpoint)
    if done.returncode == OS_ERROR:
        number, _, text = last.partition(" ")
        raise OSError(int(number), text)
    if done.returncode == OUT_OF_MEMORY:
        raise MemoryError(f"exporting {checkpoint.name}: {last}")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise KilledError(f"the process that exports {checkpoint.name} was ended by {name}")
    if done.returncode or not path.is_file():
        raise ExportError(f"exporting {checkpoint.name} failed: {last}")


def _forget_others(path: Path) -> None:
    name, _, _ = path.stem.rpartition("-")
    for other in path.parent.glob(f"{name}-*"):
        with contextlib.suppress(OSError):
            if other.stem != path.stem and time.time() - other.stat().st_mtime > _STALE_S:
                other.unlink(missing_ok=True)
    # Leftovers of exports that were killed: no other export runs, since this one holds the lock.
    for part in path.parent.glob(f".{name}-*.part"):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def catalogued(name: str, labels: str, cache_dir: Path, *, untrained: bool) -> Checkpoint:
    """The checkpoint that the exporting process is asked for."""
    catalogue = Catalogue(cache_dir, untrained=untrained)
    return catalogue.find(name) if untrained else catalogue.find(name, labels)
