"""Data sets a split at a time: evaluation needs no training pictures, and takes folders that are classes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.errors import DataError
from models.data.sources import Labelled, evenly, open_splits
from models.images.preprocess import PRESETS
from tests.data_sets import colours, encoded, write_digits, write_tree

CIFAR10 = PRESETS["cifar10"]


def opened(path: Path, label_set: str = "cifar10") -> Labelled:
    (found,) = open_splits(path, label_set, ("test",))
    return found


def refuse(path: Path, label_set: str = "cifar10") -> str:
    with pytest.raises(DataError) as caught:
        opened(path, label_set)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_arrays_of_training_pictures_are_not_read(tmp_path: Path) -> None:
    path = write_digits(tmp_path / "mnist.npz", 5, 20)
    with np.load(path) as arrays:
        test = {name: arrays[name] for name in arrays if name.startswith("test")}
    np.savez(path, **test, train_images=np.array([{}], dtype=object))
    assert len(opened(path, "mnist")) == 20
    np.savez(path, test_images=test["test_images"])
    assert "is not an .npz file with test_images, test_labels" in refuse(path, "mnist")


def test_digits_in_folders(tmp_path: Path) -> None:
    picture = encoded(colours(1, 1)[0][1])
    found = opened(write_tree(tmp_path, {f"{digit}/1.png": picture for digit in range(10)}), "mnist")
    assert found.classes.tolist() == list(range(10))


def test_a_part_is_taken_evenly() -> None:
    assert evenly(5, None).tolist() == [0, 1, 2, 3, 4]
    assert evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert evenly(100, 1).tolist() == [0]
    assert np.bincount(evenly(1000, 50) // 100).tolist() == [5] * 10
    assert len(set(evenly(997, 300).tolist())) == 300
