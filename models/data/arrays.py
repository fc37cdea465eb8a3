"""A data set in one ``.npz`` file: pictures and class numbers as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.data.errors import DataError
from models.data.listing import SplitName

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

#: Names of the arrays of a split: ours, and those in Keras' copies of data sets.
_NAMES: Mapping[SplitName, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "train": (("train_images", "train_labels"), ("x_train", "y_train")),
        "test": (("test_images", "test_labels"), ("x_test", "y_test")),
    }
)


class Arrays(NamedTuple):
    """One split: pictures (N, H, W) or (N, H, W, 3), and class numbers (N,)."""

    pictures: Bytes
    classes: Numbers


def read_npz(path: Path, splits: Sequence[SplitName]) -> list[Arrays]:
    """Reads the splits that are asked for, and no array of the others.

    Raises:
        DataError: the file is damaged, an array is missing, or the arrays do not fit each other.
    """
    try:
        # Opened here, since numpy leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            chosen = [next((pair for pair in _NAMES[split] if pair[0] in arrays), _NAMES[split][0]) for split in splits]
            found = [(np.asarray(arrays[pictures]), np.asarray(arrays[classes])) for pictures, classes in chosen]
    except Exception as error:
        # numpy and zipfile raise OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, BadZipFile,
        # zlib.error and even tokenize's TokenError on damaged files.
        names = ", ".join(name for split in splits for name in _NAMES[split][0])
        raise DataError(f"{path} is not an .npz file with {names}: {error}") from error
    return [_checked(path, pictures, classes) for pictures, classes in found]


def _checked(path: Path, pictures: npt.NDArray[np.generic], classes: npt.NDArray[np.generic]) -> Arrays:
    if classes.ndim == 2 and classes.shape[1] == 1:  # the shape in Keras' CIFAR-10
        classes = classes[:, 0]
    plain = pictures.dtype == np.uint8 and np.issubdtype(classes.dtype, np.integer)
    shaped = pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[3] in (1, 3))
    if not plain or not shaped or classes.shape != pictures.shape[:1]:
        raise DataError(
            f"{path}: {pictures.dtype} pictures {pictures.shape} and {classes.dtype} labels {classes.shape} are not "
            f"uint8 (N, height, width[, 3]) and integers (N,)"
        )
    return Arrays(pictures.astype(np.uint8, copy=False), classes.astype(np.int64))
