"""Training and test pictures with their class numbers, from a folder, a ZIP or an ``.npz`` file.

Every picture is decoded once before training begins, which finds the unreadable ones. Where a recipe sees pictures as
serving does, up to what it distorts (CIFAR-10, MNIST), the crops of that pass are kept, in 8 bits; where it cuts random
regions out of photographs, they stay on disk and are decoded again each time.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from models.labels import labels
from models.pictures import PictureError
from models.preprocess import Preprocess, cut, decode_for
from models.training.arrays import Arrays, Bytes, Numbers, read_npz
from models.training.errors import DataError
from models.training.listing import check_classes, list_pictures
from models.training.mnist import read_mnist

_MAX_PIXELS = 80_000_000
#: Pictures that a thread decodes before it takes others.
_PIECE = 64
#: What reading a picture file raises if it, or the archive it lies in, is damaged.
_UNREADABLE = (PictureError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


class Source(Protocol):
    """Decoded pictures by number."""

    def __len__(self) -> int: ...

    def open(self, number: int) -> tuple[Image.Image, bytes]:
        """The picture, and what it was decoded from. Raises one of ``_UNREADABLE``."""

    def name(self, number: int) -> str:
        """Where it came from."""


@dataclass(frozen=True, slots=True)
class Files:
    """Encoded pictures."""

    names: list[str]
    read: Callable[[str], bytes]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.names)

    def open(self, number: int) -> tuple[Image.Image, bytes]:
        data = self.read(self.names[number])
        return decode_for(data, self.preprocess, max_pixels=_MAX_PIXELS), data

    def name(self, number: int) -> str:
        return self.names[number]


@dataclass(frozen=True, slots=True)
class Held:
    """Pictures in an array."""

    pixels: Bytes
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.pixels)

    def open(self, number: int) -> tuple[Image.Image, bytes]:
        pixels = self.pixels[number]
        picture = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
        return picture.convert("L" if self.preprocess.channels == 1 else "RGB"), pixels.tobytes()

    def name(self, number: int) -> str:
        return f"number {number}"


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures that can be decoded, and their class numbers (N,)."""

    source: Source
    numbers: Numbers
    """Which pictures of the source they are."""
    classes: Numbers
    preprocess: Preprocess
    crops: Bytes | None
    """uint8 (N, crop, crop, channels), where they are kept."""

    def __len__(self) -> int:
        return len(self.classes)

    def picture(self, i: int) -> Image.Image:
        return self.source.open(int(self.numbers[i]))[0]

    def cut(self, chosen: Numbers) -> Bytes:
        """What serving sees of some pictures before they are finished: uint8 (N, crop, crop, channels)."""
        if self.crops is not None:
            return self.crops[chosen]
        return np.stack([cut(self.picture(int(i)), self.preprocess) for i in chosen])


@dataclass(frozen=True, slots=True)
class DataSet:
    """What there is to learn from, and to measure with."""

    train: Split
    test: Split
    unreadable: list[str]
    """Pictures that were left out, each with the reason."""
    digest: str
    """Of all pictures that were read, and their classes."""


def read_data(
    path: Path,
    label_set: str,
    preprocess: Preprocess,
    *,
    keep: bool,
    fail_unreadable: bool = False,
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> DataSet:
    """Reads a data set: decodes every picture once.

    Args:
        path: a folder or ZIP file with ``train/<class>/`` and ``test/<class>/``, an ``.npz`` file, or the folder of
            MNIST's IDX files.
        label_set: whose classes they are.
        preprocess: of the checkpoint that is trained.
        keep: the crops are kept in memory.
        fail_unreadable: a picture that cannot be decoded is an error.
        watch: is told how many pictures are decoded, and of how many.

    Raises:
        DataError: it is not all there; or, if so wished, a picture is unreadable.
    """
    sources, classes = _sources(path, label_set, preprocess)
    total = sum(len(source) for source in sources)
    digest, unreadable, splits = hashlib.sha256(), [], []
    for name, source, numbers in zip(("train", "test"), sources, classes, strict=True):
        before = total - len(source) if name == "test" else 0
        good, crops = [], []
        for i, outcome in enumerate(_decoded(source, preprocess)):
            if i % _PIECE == 0 or i + 1 == len(source):
                watch(before + i + 1, total)
            if isinstance(outcome, str):
                unreadable.append(f"{source.name(i)}: {outcome}")
                if fail_unreadable:
                    raise DataError(f"{path}: {unreadable[0]}")
                continue
            pixels, picture_digest = outcome
            digest.update(picture_digest + int(numbers[i]).to_bytes(2, "big"))
            good.append(i)
            if keep:
                crops.append(pixels)
        left = numbers[good]
        check_classes(path, name, set(left.tolist()), label_set)
        kept = np.stack(crops) if keep else None
        splits.append(Split(source, np.array(good, np.int64), left, preprocess, kept))
    train, test = splits
    return DataSet(train, test, unreadable, digest.hexdigest())


def _sources(
    path: Path, label_set: str, preprocess: Preprocess
) -> tuple[tuple[Source, Source], tuple[Numbers, Numbers]]:
    if not path.exists():
        raise DataError(f"there is no {path}")
    pictures = not path.is_dir() or any((path / name).is_dir() for name in ("train", "test", "val"))
    if path.suffix == ".npz" or (label_set == "mnist" and not pictures):
        arrays = read_mnist(path) if label_set == "mnist" else read_npz(path)
        _check_numbers(path, arrays, label_set)
        sources = Held(arrays.train_pictures, preprocess), Held(arrays.test_pictures, preprocess)
        return sources, (arrays.train_classes, arrays.test_classes)
    listing = list_pictures(path, label_set)

    def files(listed: list[tuple[str, int]]) -> Files:
        return Files([name for name, _ in listed], listing.read, preprocess)

    numbers = [np.array([number for _, number in listed], np.int64) for listed in (listing.train, listing.test)]
    return (files(listing.train), files(listing.test)), (numbers[0], numbers[1])


def _check_numbers(path: Path, arrays: Arrays, label_set: str) -> None:
    count = len(labels(label_set))
    for name, classes in (("train", arrays.train_classes), ("test", arrays.test_classes)):
        if len(classes) and (classes.min() < 0 or classes.max() >= count):
            raise DataError(
                f"{path}: class numbers from {classes.min()} to {classes.max()} in {name}; "
                f"{label_set} has 0 to {count - 1}"
            )


def _decoded(source: Source, preprocess: Preprocess) -> Iterator[tuple[Bytes, bytes] | str]:
    """The crop and digest of each picture in order, or why there is none."""

    def one(number: int) -> tuple[Bytes, bytes] | str:
        try:
            picture, data = source.open(number)
            return cut(picture, preprocess), hashlib.sha256(data).digest()
        except _UNREADABLE as error:
            return " ".join(str(error).split())

    def some(start: int) -> list[tuple[Bytes, bytes] | str]:
        return [one(number) for number in range(start, min(start + _PIECE, len(source)))]

    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        starts = iter(range(0, len(source), _PIECE))
        # A few at a time: all of ImageNet's crops at once would not fit into memory.
        while now := list(islice(starts, 4 * threads)):
            for found in pool.map(some, now):
                yield from found
