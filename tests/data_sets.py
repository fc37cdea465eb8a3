"""Data sets that are learnt in seconds: classes of flat colours, or of blocks of light, with a little noise."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.checkpoints.labels import labels
from models.data.arrays import Arrays, Bytes
from models.data.errors import DataError
from models.data.sources import Labelled, open_splits

WORDS = [label.word for label in labels("cifar10")]


def digits(count: int, seed: int, noise: int = 40) -> tuple[Bytes, Bytes]:
    """Ten patterns of light blocks on a dark border, each with a little noise: as easy as digits get. With more of it,
    up to 255, they are hard to tell apart."""
    patterns = np.pad(np.random.default_rng(99).integers(0, 2, (10, 5, 5)), ((0, 0), (1, 1), (1, 1)))
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(np.arange(count) % 10)
    pictures = np.kron(patterns, np.ones((4, 4)))[numbers] * min(200, 255 - noise)
    pictures = pictures + rng.integers(0, noise, (count, 28, 28))
    return pictures.astype(np.uint8), numbers.astype(np.uint8)


def write_digits(path: Path, train: int = 400, test: int = 100, noise: int = 40) -> Path:
    """An ``.npz`` file as MNIST's."""
    (pictures, numbers), (test_pictures, test_numbers) = digits(train, 1, noise), digits(test, 2, noise)
    np.savez(path, train_images=pictures, train_labels=numbers, test_images=test_pictures, test_labels=test_numbers)
    return path


def colours(each: int, seed: int, size: tuple[int, int] = (32, 32)) -> list[tuple[int, Image.Image]]:
    """Ten classes, each of its own colour."""
    rng, grounds = np.random.default_rng(seed), np.random.default_rng(7).integers(40, 215, (10, 1, 1, 3))
    shape = (size[1], size[0], 3)
    return [
        (number, Image.fromarray((grounds[number] + rng.integers(-30, 30, shape)).astype(np.uint8)))
        for number in range(10)
        for _ in range(each)
    ]


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def tree(train: int = 4, test: int = 2, size: tuple[int, int] = (32, 32)) -> dict[str, bytes]:
    """Names below the root and contents, as CIFAR-10's ZIP file has them."""
    found: dict[str, bytes] = {}
    for split, each, seed in (("train", train, 1), ("test", test, 2)):
        for i, (number, picture) in enumerate(colours(each, seed, size)):
            found[f"{split}/{WORDS[number]}/{i:04}.png"] = encoded(picture)
    return found


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


Data = list[Arrays]


def arrays() -> Data:
    """Six training and four test pictures of MNIST's size."""
    rng = np.random.default_rng(0)

    def pictures(count: int) -> Bytes:
        return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)

    return [Arrays(pictures(6), np.arange(6)), Arrays(pictures(4), np.arange(4))]


def flat(data: Data) -> list[npt.NDArray[Any]]:
    """The pictures and classes of each split, one after the other."""
    return [array for split in data for array in split]


def opened(path: Path, label_set: str = "cifar10") -> Labelled:
    """The test split of a data set."""
    (found,) = open_splits(path, label_set, ("test",))
    return found


def refuse(path: Path, label_set: str = "cifar10") -> str:
    """The text with which a data set is refused: one line that names its path."""
    with pytest.raises(DataError) as caught:
        opened(path, label_set)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)
