"""Pictures by number, from every kind of data set; only the splits that are asked for are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.data.sources import Held, evenly
from models.images.preprocess import PRESETS
from tests.data_sets import colours, encoded, opened, refuse, write_digits, write_tree

CIFAR10 = PRESETS["cifar10"]


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


@pytest.mark.parametrize("number", [-1, 10])
def test_a_class_number_just_outside_is_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, test_images=np.zeros((3, 8, 8, 3), np.uint8), test_labels=np.array([0, number, 9]))
    assert f"{min(number, 0)} to {max(number, 9)} in test; cifar10 has 0 to 9" in refuse(path)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3)])
@pytest.mark.parametrize(("preset", "mode"), [("mnist", "L"), ("cifar10", "RGB")])
def test_pictures_in_an_array_become_grey_or_colour(shape: tuple[int, ...], preset: str, mode: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, *shape), dtype=np.uint8)
    picture, data = Held(pixels).open(1, PRESETS[preset])
    assert (picture.mode, data) == (mode, pixels[1].tobytes())
    expected = Image.fromarray(pixels[1].squeeze()).convert(mode)
    assert np.array_equal(np.asarray(picture), np.asarray(expected))
