"""Exported graphs on disk, so that whoever serves a checkpoint a second time needs no torch.

A graph is named for its checkpoint and for a digest of the weights, of what the card says of them, of the code of
``models`` and of torch's version. A graph that is not there yet is exported in a process of its own, which keeps torch,
its 300 MB and its seconds, out of the server's.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from models.checkpoints import Catalogue, Checkpoint, WeightsMissingError, WrongWeightsError, card

#: How long an export may take. VGG-19 takes seconds; a machine short of memory may swap.
_EXPORT_WITHIN_S = 300.0
#: Graphs of the same checkpoint that nobody has loaded for so long go when a new one comes.
_STALE_S = 24 * 3600.0
#: Exit status of the exporting process for weights that are wrong; its last line says what is.
WRONG_WEIGHTS = 3
WEIGHTS_MISSING = 4


def cached_graph(checkpoint: Checkpoint, cache_dir: Path) -> Path:
    """The graph of a checkpoint below ``cache_dir``, exported first if need be. Blocks.

    Raises:
        WeightsMissingError, WrongWeightsError: see ``building.build_checkpoint``.
        RuntimeError: the export failed for another reason.
    """
    if checkpoint.state != "loadable":
        raise WeightsMissingError(checkpoint)
    path = graph_path(checkpoint, cache_dir)
    if not path.is_file():
        path = _folder(cache_dir) / path.name
        # One export at a time: replicas that start together often want the same graph, and each export takes several
        # times its weights in memory.
        with (path.parent / "export.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                export_apart(checkpoint, cache_dir, path)
                _forget_others(path)
                if graph_path(checkpoint, cache_dir).name != path.name:
                    # The weights were replaced meanwhile, and nobody knows which ones were exported.
                    path.unlink()
                    raise RuntimeError(f"the weights of {checkpoint.name} were replaced while they were exported")
    with contextlib.suppress(OSError):
        path.touch()
    return path


def _folder(cache_dir: Path) -> Path:
    """Where graphs are kept; a folder for this process alone where the cache cannot be written to."""
    folder = cache_dir / "graphs"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else _own_folder()


@functools.cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="topfive-graphs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


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
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def export_apart(checkpoint: Checkpoint, cache_dir: Path, path: Path) -> None:
    """Exports a graph in a process of its own. Raises as ``cached_graph`` does."""
    command = [sys.executable, "-m", "models.export", checkpoint.variant.name, "--labels", checkpoint.labels]
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
        raise RuntimeError(f"exporting {checkpoint.name} took more than {_EXPORT_WITHIN_S:.0f} s") from error
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    if done.returncode == WRONG_WEIGHTS:
        raise WrongWeightsError(last)
    if done.returncode == WEIGHTS_MISSING:
        raise WeightsMissingError(checkpoint)
    if done.returncode or not path.is_file():
        raise RuntimeError(f"exporting {checkpoint.name} failed: {last}")


def _forget_others(path: Path) -> None:
    name, _, _ = path.stem.rpartition("-")
    for other in path.parent.glob(f"{name}-*"):
        if other.stem != path.stem and time.time() - other.stat().st_mtime > _STALE_S:
            other.unlink(missing_ok=True)
    # What an export that was killed has left. There is but one at a time.
    for part in path.parent.glob(f".{name}-*.part"):
        part.unlink(missing_ok=True)


def catalogued(name: str, labels: str, cache_dir: Path, *, untrained: bool) -> Checkpoint:
    """The checkpoint that an exporting process was asked for."""
    catalogue = Catalogue(cache_dir, untrained=untrained)
    return catalogue.find(name) if untrained else catalogue.find(name, labels)
