"""Data sets in one ``.npz`` file: pictures and class numbers as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.training.errors import DataError

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

#: Keras' copies of data sets name their arrays as in the second row.
_NAMES = (("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"))


class Arrays(NamedTuple):
    """Pictures (N, H, W) or (N, H, W, 3), and class numbers (N,)."""

    train_pictures: Bytes
    train_classes: Numbers
    test_pictures: Bytes
    test_classes: Numbers


def read_npz(path: Path) -> Arrays:
    """Raises DataError if the file is damaged, or its arrays do not fit each other."""
    try:
        # Opened here: numpy leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = _NAMES[0] if _NAMES[0][0] in arrays else _NAMES[1]
            pictures, classes, test_pictures, test_classes = (np.asarray(arrays[name]) for name in names)
    except Exception as error:
        # numpy and zipfile raise OSError, EOFError, KeyError, ValueError, TypeError, BadZipFile, zlib.error and even
        # tokenize's TokenError on damaged files.
        raise DataError(f"{path} is no .npz file with {', '.join(_NAMES[0])}: {error}") from error
    return Arrays(*_checked(path, pictures, classes), *_checked(path, test_pictures, test_classes))


def _checked(path: Path, pictures: npt.NDArray[np.generic], classes: npt.NDArray[np.generic]) -> tuple[Bytes, Numbers]:
    if classes.ndim == 2 and classes.shape[1] == 1:  # as Keras writes CIFAR-10's
        classes = classes[:, 0]
    plain = pictures.dtype == np.uint8 and np.issubdtype(classes.dtype, np.integer)
    shaped = pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[3] in (1, 3))
    if not plain or not shaped or classes.shape != pictures.shape[:1]:
        raise DataError(
            f"{path}: {pictures.dtype} pictures {pictures.shape} and {classes.dtype} labels {classes.shape} are not "
            f"uint8 (N, height, width[, 3]) and whole numbers (N,)"
        )
    return pictures.astype(np.uint8, copy=False), classes.astype(np.int64)
