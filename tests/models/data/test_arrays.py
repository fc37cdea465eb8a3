"""Data sets in .npz files, whole and damaged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.data.arrays import Arrays, read_npz
from models.data.errors import DataError
from models.data.listing import SplitName
from models.data.mnist import read_mnist
from tests.data_sets import Data, arrays, flat

SPLITS: tuple[SplitName, ...] = ("train", "test")


def same(first: Data, second: Data) -> bool:
    pairs = zip(flat(first), flat(second), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def npz(data: Data, names: tuple[str, ...] = ("train_images", "train_labels", "test_images", "test_labels")) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **dict(zip(names, flat(data), strict=True)))  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("names", [
    ("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"),
])  # fmt: skip
def test_an_npz_file(tmp_path: Path, names: tuple[str, ...]) -> None:
    data, path = arrays(), tmp_path / "mnist.npz"
    path.write_bytes(npz(data, names))
    assert same(read_mnist(path, SPLITS), data)


def refuse(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_mnist(path, SPLITS)
    assert str(path if path.suffix == ".npz" else path.name) in str(caught.value)
    return str(caught.value)


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "mnist.npz", npz(arrays())
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    pickled = io.BytesIO()
    np.savez(pickled, train_images=np.array([{}], dtype=object))
    for content in (b"", b"no archive", data[:100], data[:-30], array.getvalue(), pickled.getvalue()):
        path.write_bytes(content)
        assert "is not an .npz file with train_images" in refuse(path)


def test_damage_anywhere_in_an_npz_raises_nothing_else(tmp_path: Path) -> None:
    path, data, rng = tmp_path / "mnist.npz", npz(arrays()), np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(data), 200):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            read_mnist(path, SPLITS)
        except DataError:
            refused += 1
    # The rest hits dates and the like, which nobody reads.
    assert refused > 150


def one_split(path: Path, pictures: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Arrays:
    np.savez(path, test_images=pictures, test_labels=classes)
    (found,) = read_npz(path, ("test",))
    return found


def test_labels_may_be_a_column_and_of_any_integer_type(tmp_path: Path) -> None:
    """Keras' CIFAR-10 has uint8 labels (N, 1)."""
    pictures = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    found = one_split(tmp_path / "set.npz", pictures, np.array([[3], [1], [4], [1], [5]], np.uint8))
    assert found.classes.tolist() == [3, 1, 4, 1, 5]
    assert found.classes.dtype == np.int64
    assert np.array_equal(found.pictures, pictures)


@pytest.mark.parametrize("shape", [(5, 4, 4), (5, 4, 4, 1), (5, 4, 4, 3)])
def test_pictures_are_grey_or_rgb(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert one_split(tmp_path / "set.npz", np.zeros(shape, np.uint8), np.arange(5)).pictures.shape == shape


@pytest.mark.parametrize(
    ("pictures", "classes"),
    [
        (np.zeros((5, 4, 4, 2), np.uint8), np.arange(5)),
        (np.zeros((5, 4, 4, 4), np.uint8), np.arange(5)),
        (np.zeros((5, 16), np.uint8), np.arange(5)),
        (np.zeros((5, 1, 4, 4, 3), np.uint8), np.arange(5)),
        (np.zeros((5, 4, 4), np.int16), np.arange(5)),
        (np.zeros((5, 4, 4), np.uint8), np.arange(4)),
        (np.zeros((5, 4, 4), np.uint8), np.arange(6)),
        (np.zeros((5, 4, 4), np.uint8), np.zeros((5, 2), int)),
        (np.zeros((5, 4, 4), np.uint8), np.zeros(5)),
    ],
    ids=["two channels", "four", "flat", "five axes", "int16", "a label few", "a label many", "two columns", "floats"],
)
def test_arrays_of_another_shape_or_type_are_refused(
    tmp_path: Path, pictures: npt.NDArray[Any], classes: npt.NDArray[Any]
) -> None:
    with pytest.raises(DataError, match=r"are not uint8 \(N, height, width\[, 3\]\) and integers \(N,\)"):
        one_split(tmp_path / "set.npz", pictures, classes)
