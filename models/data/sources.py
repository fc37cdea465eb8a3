"""The pictures of a data set by number, with their classes, from a folder, a ZIP or an ``.npz`` file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from models.checkpoints.labels import labels
from models.data.arrays import Arrays, Bytes, Numbers, read_npz
from models.data.errors import DataError
from models.data.listing import SPLIT_FOLDERS, SplitName, list_pictures
from models.data.mnist import read_mnist
from models.images.pictures import PictureError
from models.images.preprocess import Preprocess, decode_for

_MAX_PIXELS = 80_000_000
#: What reading a picture file raises if it, or the archive it lies in, is damaged.
UNREADABLE = (PictureError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


class Source(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def open(self, number: int, preprocess: Preprocess) -> tuple[Image.Image, bytes]:
        """The picture as ``preprocess.decode_for`` gives it, and what it was decoded from. Raises one of
        ``UNREADABLE``."""

    def name(self, number: int) -> str:
        """Where it came from."""


@dataclass(frozen=True, slots=True)
class Files:
    """Encoded pictures."""

    names: list[str]
    read: Callable[[str], bytes]

    def __len__(self) -> int:
        return len(self.names)

    def open(self, number: int, preprocess: Preprocess) -> tuple[Image.Image, bytes]:
        data = self.read(self.names[number])
        return decode_for(data, preprocess, max_pixels=_MAX_PIXELS), data

    def name(self, number: int) -> str:
        return self.names[number]


@dataclass(frozen=True, slots=True)
class Held:
    """Pictures in an array."""

    pixels: Bytes

    def __len__(self) -> int:
        return len(self.pixels)

    def open(self, number: int, preprocess: Preprocess) -> tuple[Image.Image, bytes]:
        pixels = self.pixels[number]
        picture = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
        return picture.convert("L" if preprocess.channels == 1 else "RGB"), pixels.tobytes()

    def name(self, number: int) -> str:
        return f"number {number}"


@dataclass(frozen=True, slots=True)
class Labelled:
    """One split of a data set."""

    folder: str
    """``train``, ``test`` or ``val``; empty if classes are all that the data set has."""
    source: Source
    classes: Numbers
    """Class numbers (N,)."""

    def __len__(self) -> int:
        return len(self.classes)


def open_splits(path: Path, label_set: str, splits: Sequence[SplitName]) -> list[Labelled]:
    """Lists the splits that are asked for, and reads none of their picture files.

    Args:
        path: a folder or ZIP file with ``train/<class>/`` and ``test/<class>/`` (or ``val``), or, where ``test`` alone
            is asked for, with ``<class>/``; an ``.npz`` file; or the folder of MNIST's IDX files.
        label_set: whose classes they are.
        splits: which.

    Raises:
        DataError: a split is missing or damaged, or has foreign classes.
    """
    if not path.exists():
        raise DataError(f"there is no {path}")
    if path.suffix == ".npz" or _holds_idx_files(path, label_set):
        read = read_mnist if label_set == "mnist" else read_npz
        found = dict(zip(splits, read(path, splits), strict=True))
        for split, arrays in found.items():
            _check_numbers(path, split, arrays, label_set)
        return [Labelled(split, Held(arrays.pictures), arrays.classes) for split, arrays in found.items()]
    listing = list_pictures(path, label_set, splits)
    return [
        Labelled(
            listed.folder,
            Files([name for name, _ in listed.pictures], listing.read),
            np.array([number for _, number in listed.pictures], np.int64),
        )
        for listed in listing.splits
    ]


def _holds_idx_files(path: Path, label_set: str) -> bool:
    """Whether MNIST's own files are meant: no folder here could be a split, or a class."""
    folders = (*SPLIT_FOLDERS, *(label.word for label in labels(label_set)))
    return label_set == "mnist" and path.is_dir() and not any((path / name).is_dir() for name in folders)


def _check_numbers(path: Path, split: SplitName, arrays: Arrays, label_set: str) -> None:
    classes, count = arrays.classes, len(labels(label_set))
    if len(classes) and (classes.min() < 0 or classes.max() >= count):
        raise DataError(
            f"{path}: class numbers from {classes.min()} to {classes.max()} in {split}; "
            f"{label_set} has 0 to {count - 1}"
        )


def evenly(count: int, most: int | None) -> Numbers:
    """The numbers of ``most`` of ``count`` pictures, evenly over all, since a folder orders them by class; None for
    all."""
    return np.linspace(0, count - 1, count if most is None else min(most, count)).astype(np.int64)
