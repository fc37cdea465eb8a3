"""Exported graphs on disk, so that whoever serves a checkpoint a second time needs no torch.

A graph is named for its checkpoint and for a digest of the weights, of what the card says of them, of the code of
``models`` and of torch's version. A graph that is not there yet is exported in a process of its own, which keeps torch,
its 300 MB and its seconds, out of the server's.

Where the cache cannot take a graph (the disk is full, the folder is read-only), graphs go to a folder of this run below
the system's temporary one, which the processes of one service share. Each of them holds a lock on it, which falls with
the process however that ends, so that ``clear_unused_graphs`` knows what nobody needs any more.
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

#: How long an export may take. VGG-19 takes seconds; a machine short of memory may swap.
_EXPORT_WITHIN_S = 300.0
#: Graphs of the same checkpoint that nobody has loaded for so long go when a new one comes.
_STALE_S = 24 * 3600.0
#: Exit statuses of the exporting process, whose last line says what is wrong; that of ``OS_ERROR`` begins with the
#: error's number.
WRONG_WEIGHTS, WEIGHTS_MISSING, OS_ERROR, OUT_OF_MEMORY = 3, 4, 5, 6
#: Why a file cannot be written in one folder and may be in another.
_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
    errno.ENOENT, errno.EIO, errno.ENAMETOOLONG, errno.EMLINK,
}  # fmt: skip
#: The processes of one service carry the same value (``service/processes.py``).
_RUN_ID = "TOPFIVE_RUN_ID"
_PREFIX = "topfive-graphs-"

log = logging.getLogger(__name__)


class ExportError(RuntimeError):
    """A graph could not be exported, for a reason that is not the weights'; the text says which in one line."""


class KilledError(ExportError):
    """The process that exports was ended by a signal, as the system does when memory is short."""


class Damaged(NamedTuple):
    """A graph that does not parse."""

    path: Path
    inode: int
    """Of the very file: another process may have replaced it by now."""

    @classmethod
    def at(cls, path: Path) -> Damaged:
        return cls(path, path.stat().st_ino)

    def is_there(self) -> bool:
        """Whether nobody has replaced it."""
        try:
            return self.path.stat().st_ino == self.inode
        except FileNotFoundError:
            return False


def cached_graph(checkpoint: Checkpoint, cache_dir: Path, *, damaged: Damaged | None = None) -> Path:
    """The graph of a checkpoint below ``cache_dir``, exported first if need be; below the run's own folder where the
    cache cannot be written to. Blocks.

    Args:
        checkpoint: a loadable one.
        cache_dir: where graphs are kept.
        damaged: a graph that was found damaged, and is replaced by a new one.

    Raises:
        WeightsMissingError, WrongWeightsError: see ``building.build_checkpoint``.
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
    """Exports into the cache, or else into the run's own folder; what the cache did not take once is not tried there
    again, since each try is a whole export."""
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
    """Exports unless another process has done so meanwhile. Replicas that start together often want the same graph, and
    each export takes several times its weights in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "export.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(path, damaged):
            # It comes by rename, over a damaged one.
            export_apart(checkpoint, cache_dir, path)
            _forget_others(path)
            if graph_path(checkpoint, cache_dir).name != path.name:
                # The weights were replaced meanwhile, and nobody knows which ones were exported.
                path.unlink()
                raise ExportError(f"the weights of {checkpoint.name} were replaced while they were exported")
    return path


#: The run's own folder, once it is needed.
_own_folders: list[Path] = []


def _make_own_folder(instead_of: Path, why: OSError) -> None:
    """Makes the run's own folder for graphs.

    Raises:
        OSError: there is no temporary folder that can be written to; then it is ``why``.
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
        # Of a service the others may still use it.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _locked_folder(name: str) -> Path:
    """A folder in the temporary one, which this process locks for as long as it lives."""
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
        os.close(handle)  # it was cleared away between the first step and the last


def clear_unused_graphs() -> int:
    """Removes the folders of runs that have ended, however they ended. Returns how many there were."""
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
    """Where the graph of a checkpoint lies, or will.

    Raises:
        WeightsMissingError: the weights have gone.
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
    """A digest of the code that a graph depends on: of all of it, rather than of a list that somebody forgets."""
    digest = hashlib.sha256()
    digest.update(metadata.version("torch").encode())
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def export_apart(checkpoint: Checkpoint, cache_dir: Path, path: Path) -> None:
    """Exports a graph in a process of its own, whole or not at all. Raises as ``cached_graph`` does."""
    command = [sys.executable, "-m", "models.onnx.export", checkpoint.variant.name, "--labels", checkpoint.labels]
    command += ["--cache-dir", str(cache_dir), "--output", str(path)]
    if not checkpoint.trained:
        command.append("--untrained")
    # Threads that spin while they wait for each other would take cores from those who serve meanwhile.
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
    # What an export that was killed has left. There is but one at a time.
    for part in path.parent.glob(f".{name}-*.part"):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def catalogued(name: str, labels: str, cache_dir: Path, *, untrained: bool) -> Checkpoint:
    """The checkpoint that an exporting process was asked for."""
    catalogue = Catalogue(cache_dir, untrained=untrained)
    return catalogue.find(name) if untrained else catalogue.find(name, labels)
