"""The pictures of a data set by number, with their classes, for every kind of data set."""

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
from models.data.cifar10 import find_batches, read_cifar10
from models.data.errors import DataError
from models.data.listing import SPLIT_FOLDERS, SplitName, list_pictures
from models.data.mnist import read_mnist
from models.images.pictures import PictureError
from models.images.preprocess import Preprocess, decode_for

_MAX_PIXELS = 80_000_000
#: What ``Source.open`` raises if a picture file, or the archive that holds it, is damaged.
UNREADABLE = (PictureError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


class Source(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def open(self, number: int, preprocess: Preprocess) -> tuple[Image.Image, bytes]:
        """Returns the picture as ``preprocess.decode_for`` decodes it, and the bytes that it was decoded from. Raises
        one of ``UNREADABLE``."""

    def name(self, number: int) -> str:
        """The picture's file name, or its number in the array."""


@dataclass(frozen=True, slots=True)
class Files:
    """Pictures in files of their own."""

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
    """``train``, ``test`` or ``val``; empty if the data set consists of class folders alone."""
    source: Source
    classes: Numbers
    """Class numbers (N,)."""

    def __len__(self) -> int:
        return len(self.classes)


def open_splits(path: Path, label_set: str, splits: Sequence[SplitName]) -> list[Labelled]:
    """Opens the splits that are asked for, without reading any picture file.

    Args:
        path: a folder or ZIP file with ``train/<class>/`` and ``test/<class>/`` (or ``val``), or, where ``test`` alone
            is asked for, with ``<class>/``; an ``.npz`` file; the folder of MNIST's IDX files; or CIFAR-10's
            ``cifar-10-batches-py``.
        label_set: the label set that the classes are of.
        splits: the splits to open.

    Raises:
        DataError: a split is missing or damaged, or has foreign classes.
    """
    if not path.exists():
        raise DataError(f"there is no {path}")
    arrays = _read_arrays(path, label_set, splits)
    if arrays is not None:
        for split, each in zip(splits, arrays, strict=True):
            _check_numbers(path, split, each, label_set)
        return [Labelled(split, Held(each.pictures), each.classes) for split, each in zip(splits, arrays, strict=True)]
    listing = list_pictures(path, label_set, splits)
    return [
        Labelled(
            listed.folder,
            Files([name for name, _ in listed.pictures], listing.read),
            np.array([number for _, number in listed.pictures], np.int64),
        )
        for listed in listing.splits
    ]


def _read_arrays(path: Path, label_set: str, splits: Sequence[SplitName]) -> list[Arrays] | None:
    """The splits of a data set that is kept in arrays; None if the data set is picture files."""
    if label_set == "mnist" and (path.suffix == ".npz" or _holds_idx_files(path)):
        return read_mnist(path, splits)
    if path.suffix == ".npz":
        return read_npz(path, splits)
    batches = find_batches(path) if label_set == "cifar10" else None
    return None if batches is None else read_cifar10(batches, splits)


def _holds_idx_files(path: Path) -> bool:
    """Whether a folder is taken for that of the MNIST IDX files: none of its folders could be a split or a class."""
    folders = (*SPLIT_FOLDERS, *(label.word for label in labels("mnist")))
    return path.is_dir() and not any((path / name).is_dir() for name in folders)


def _check_numbers(path: Path, split: SplitName, arrays: Arrays, label_set: str) -> None:
    classes, count = arrays.classes, len(labels(label_set))
    if len(classes) and (classes.min() < 0 or classes.max() >= count):
        raise DataError(
            f"{path}: class numbers from {classes.min()} to {classes.max()} in {split}; "
            f"{label_set} has 0 to {count - 1}"
        )


def evenly(count: int, most: int | None) -> Numbers:
    """The numbers of ``most`` out of ``count`` pictures (None: all), evenly spaced, since files are sorted by class."""
    return np.linspace(0, count - 1, count if most is None else min(most, count)).astype(np.int64)
