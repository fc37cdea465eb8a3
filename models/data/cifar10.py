"""CIFAR-10 from the batches in which it is published for Python, the folder ``cifar-10-batches-py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.data.arrays import Arrays
from models.data.errors import DataError, MissingTorchvisionError
from models.data.listing import SplitName

_FOLDER = "cifar-10-batches-py"


def find_batches(path: Path) -> Path | None:
    """The folder with the batches: ``path`` itself or a folder in it, by its name; None if it is neither."""
    for folder in (path, path / _FOLDER):
        if folder.absolute().name == _FOLDER and folder.is_dir():
            return folder
    return None


def read_cifar10(batches: Path, splits: Sequence[SplitName]) -> list[Arrays]:
    """Reads the splits that are asked for: pictures (N, 32, 32, 3), in the order of the files.

    torchvision compares the MD5 digest of every file before it unpickles one: no foreign pickle is ever loaded.

    Raises:
        DataError: a file is missing, damaged or not the published one; or torchvision is missing.
    """
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise MissingTorchvisionError(f"{_FOLDER} is read with") from error
    try:
        found = [CIFAR10(str(batches.absolute().parent), train=split == "train") for split in splits]
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{batches} does not hold all files of CIFAR-10 as published (data_batch_1 to data_batch_5, test_batch, "
            "batches.meta), or one is damaged"
        ) from error
    return [Arrays(np.asarray(each.data), np.array(each.targets, np.int64)) for each in found]
