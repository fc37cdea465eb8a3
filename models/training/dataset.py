"""Training and test pictures with their class numbers.

Every picture is decoded once before training begins, which finds the unreadable ones. If the recipe starts from the
same crops as serving (CIFAR-10, MNIST), the crops of that pass stay in memory, in 8 bits. If it cuts random regions out
of photographs, the photographs stay on disk and are decoded again in each epoch.
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

#: How many pictures a thread decodes in one piece of work.
_PIECE = 64


@dataclass(frozen=True, slots=True)
class Split:
    """The readable pictures of a split, and their class numbers (N,)."""

    source: Source
    numbers: Numbers
    """The numbers of these pictures in the source."""
    classes: Numbers
    preprocess: Preprocess
    crops: Bytes | None
    """uint8 (N, crop, crop, channels); None if crops are not kept in memory."""

    def __len__(self) -> int:
        return len(self.classes)

    def picture(self, i: int) -> Image.Image:
        return self.source.open(int(self.numbers[i]), self.preprocess)[0]

    def cut(self, chosen: Numbers) -> Bytes:
        """The crops of some pictures as in serving, not finished: uint8 (N, crop, crop, channels)."""
        if self.crops is not None:
            return self.crops[chosen]
        return np.stack([cut(self.picture(int(i)), self.preprocess) for i in chosen])


@dataclass(frozen=True, slots=True)
class DataSet:
    """The pictures to train with and to test with."""

    train: Split
    test: Split
    unreadable: list[str]
    """The names of the pictures that were left out, each with the reason."""
    digest: str
    """SHA-256 over the bytes and classes of all pictures that were read."""


def read_data(
    path: Path,
    label_set: str,
    preprocess: Preprocess,
    *,
    keep: bool,
    fail_unreadable: bool = False,
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> DataSet:
    """Reads a data set, decoding every picture once.

    Args:
        path: see ``sources.open_splits``.
        label_set: the label set that the classes are of.
        preprocess: the preprocessing of the checkpoint to train.
        keep: whether the crops are kept in memory.
        fail_unreadable: whether a picture that cannot be decoded is an error; otherwise it is left out.
        watch: called with the number of pictures decoded so far, and of all.

    Raises:
        DataError: a split or a class has no pictures; or ``fail_unreadable`` is set and a picture is unreadable.
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
    """Yields the crop and the digest of each picture in order, or the reason why there is none."""

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
        # A few pieces at a time: all of ImageNet's crops would not fit into memory.
        while now := list(islice(starts, 4 * threads)):
            for found in pool.map(some, now):
                yield from found
