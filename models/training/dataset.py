"""Training and test pictures with their class numbers, from a folder, a ZIP or an ``.npz`` file.

Every picture is decoded once before training begins, which finds the unreadable ones. Where a recipe sees pictures as
serving does, up to what it distorts (CIFAR-10, MNIST), the crops of that pass are kept, in 8 bits; where it cuts random
regions out of photographs, they stay on disk and are decoded again each time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from models.checkpoints.labels import labels
from models.data.arrays import Bytes, Numbers
from models.data.errors import DataError
from models.data.listing import and_more
from models.data.sources import UNREADABLE, Source, open_splits
from models.images.preprocess import Preprocess, cut

#: Pictures that a thread decodes before it takes others.
_PIECE = 64


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
        return self.source.open(int(self.numbers[i]), self.preprocess)[0]

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
        path: see ``sources.open_splits``.
        label_set: whose classes they are.
        preprocess: of the checkpoint that is trained.
        keep: the crops are kept in memory.
        fail_unreadable: a picture that cannot be decoded is an error.
        watch: is told how many pictures are decoded, and of how many.

    Raises:
        DataError: it is not all there; or, if so wished, a picture is unreadable.
    """
    opened = open_splits(path, label_set, ("train", "test"))
    for labelled in opened:
        _check_classes(path, labelled.folder, labelled.classes, label_set)
    total, before = sum(len(labelled) for labelled in opened), 0
    digest, unreadable, splits = hashlib.sha256(), [], []
    for labelled in opened:
        source, numbers = labelled.source, labelled.classes
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
        before += len(source)
        left = numbers[good]
        _check_classes(path, labelled.folder, left, label_set)
        kept = np.stack(crops) if keep else None
        splits.append(Split(source, np.array(good, np.int64), left, preprocess, kept))
    train, test = splits
    return DataSet(train, test, unreadable, digest.hexdigest())


def _check_classes(path: Path, split: str, numbers: Numbers, label_set: str) -> None:
    """Raises DataError if a class of the label set has no pictures."""
    present = set(numbers.tolist())
    empty = [label.word for number, label in enumerate(labels(label_set)) if number not in present]
    if empty:
        raise DataError(f"{path}: class {empty[0]!r} of {label_set} has no pictures in {split}{and_more(empty)}")


def _decoded(source: Source, preprocess: Preprocess) -> Iterator[tuple[Bytes, bytes] | str]:
    """The crop and digest of each picture in order, or why there is none."""

    def one(number: int) -> tuple[Bytes, bytes] | str:
        try:
            picture, data = source.open(number, preprocess)
            return cut(picture, preprocess), hashlib.sha256(data).digest()
        except UNREADABLE as error:
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
