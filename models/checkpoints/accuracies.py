"""Accuracies that were measured on this machine, on the operator's own pictures, and the file that keeps them.

``topfive evaluate --for-serving`` writes ``checkpoints/accuracies.json`` in the cache folder, beside the weights. It is
replaced by rename, as weights are, so that the catalogue notices both alike. An accuracy belongs to the weights that it
was measured with: it counts as long as their files have the same content.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.files import atomic_write
from models.validation import first_error

NAME = "accuracies.json"


class Weights(BaseModel):
    """The weights of one checkpoint, as they were when it was measured."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The checkpoint's: ``googlenet@imagenet1k``."""
    digest: str
    """The first 16 hexadecimal digits of the file's SHA-256."""
    status: tuple[int, int, int]
    """Inode, size and change time of the file. While they are the same, its content need not be read."""


class Accuracy(BaseModel):
    """How often a checkpoint, or an ensemble, is right on pictures of this machine's operator."""

    model_config = ConfigDict(frozen=True)

    members: tuple[Weights, ...] = Field(min_length=1)
    """One checkpoint; or those of an ensemble, whose probabilities were averaged."""
    top1: float = Field(ge=0, le=100)
    """Percent."""
    top5: float = Field(ge=0, le=100)
    pictures: int = Field(ge=1)
    measured_at: str
    """ISO 8601, UTC."""

    @property
    def names(self) -> frozenset[str]:
        """What it is of: the names of the members, in whatever order."""
        return frozenset(member.name for member in self.members)

    @property
    def source(self) -> str:
        """``measured here on 10,000 pictures``."""
        return f"measured here on {self.pictures:,} picture{'' if self.pictures == 1 else 's'}"


class _File(BaseModel):
    version: Literal[1] = 1
    accuracies: list[Accuracy] = []


def read_accuracies(path: Path, left_out: Callable[[Path, str], None] = lambda _path, _why: None) -> list[Accuracy]:
    """The accuracies in a file; none if there is no file, or if it cannot be used, which ``left_out`` is told."""
    try:
        return _File.model_validate(json.loads(path.read_text(encoding="utf-8"))).accuracies
    except FileNotFoundError:
        return []
    except ValidationError as error:
        left_out(path, str(first_error(error)))
    except (OSError, ValueError, RecursionError) as error:
        left_out(path, str(error))
    return []


def add_accuracies(path: Path, measured: Iterable[Accuracy]) -> None:
    """Adds accuracies to a file, in the place of earlier ones of the same checkpoints. Processes that write at the same
    time take turns.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        together = {accuracy.names: accuracy for accuracy in (*read_accuracies(path), *measured)}
        with atomic_write(path) as part:
            content = _File(accuracies=sorted(together.values(), key=lambda a: [m.name for m in a.members]))
            part.write_text(content.model_dump_json(indent=1) + "\n", encoding="utf-8")


def file_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256. Reads the whole file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def weights_of(name: str, path: Path) -> Weights:
    """The weights of a checkpoint as they are now.

    Raises:
        OSError: the file cannot be read.
    """
    return Weights(name=name, digest=file_digest(path), status=_status(path))


class Counting:
    """Which accuracies count, by the content of the files that they were measured with. Each file is read once, and
    only if something other than its content has changed since."""

    def __init__(self) -> None:
        self._digests: dict[tuple[Path, tuple[int, int, int]], str] = {}

    def counts(self, accuracy: Accuracy, paths: Mapping[str, Path | None]) -> bool:
        """Whether an accuracy is of the weights that are here.

        Args:
            accuracy: the accuracy.
            paths: where the weights of all checkpoints are, by name.
        """
        return all(self._same(member, paths.get(member.name)) for member in accuracy.members)

    def _same(self, weights: Weights, path: Path | None) -> bool:
        if path is None:
            return False
        try:
            status = _status(path)
            if status == weights.status:
                return True
            if status[1] != weights.status[1]:
                return False
            known = self._digests.get((path, status))
            if known is None:
                known = self._digests[path, status] = file_digest(path)
        except OSError:
            return False
        return known == weights.digest


def _status(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_ctime_ns
