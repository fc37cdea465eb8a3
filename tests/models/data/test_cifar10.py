"""CIFAR-10 as published for Python: small batches made here, whose digests replace those of the real files."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from models.checkpoints.labels import labels
from models.data.arrays import Bytes
from models.data.cifar10 import find_batches, read_cifar10
from models.data.errors import DataError
from models.data.sources import open_splits
from models.images.preprocess import PRESETS
from tests.data_sets import write_tree

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
EACH = 10


def picture(number: int) -> Bytes:
    """A picture of which no other has the pixels, of class ``number % 10``."""
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the batches. In a batch a picture is a row: all of its red, then green, then blue."""
    words = [label.word for label in labels("cifar10")]
    contents: dict[str, object] = {"batches.meta": {"label_names": words}}
    for at, name in enumerate(BATCHES):
        numbers = range(at * EACH, (at + 1) * EACH)
        rows = [picture(number).transpose(2, 0, 1).reshape(-1) for number in numbers]
        contents[name] = {"data": np.stack(rows), "labels": [number % 10 for number in numbers]}
    files = {f"{CIFAR10.base_folder}/{name}": pickle.dumps(content) for name, content in contents.items()}
    digests = {Path(name).name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, digests[name]] for name in BATCHES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[BATCHES[5], digests[BATCHES[5]]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": digests["batches.meta"]})
    return write_tree(tmp_path / "downloaded", files)


@pytest.mark.parametrize("inside", ["", CIFAR10.base_folder])
def test_the_batches_are_pictures_with_their_classes(folder: Path, inside: str) -> None:
    train, test = open_splits(folder / inside, "cifar10", ("train", "test"))
    assert (train.folder, test.folder) == ("train", "test")
    assert (len(train), len(test)) == (5 * EACH, EACH)
    for split, first in ((train, 0), (test, 5 * EACH)):
        for i in (0, len(split) - 1):
            found, _ = split.source.open(i, PRESETS["cifar10"])
            assert np.array_equal(np.asarray(found), picture(first + i))
            assert split.classes[i] == (first + i) % 10


def test_a_split_is_read_alone(folder: Path) -> None:
    (test,) = read_cifar10(folder / CIFAR10.base_folder, ("test",))
    assert np.array_equal(test.pictures[3], picture(5 * EACH + 3))
    assert (test.pictures.dtype, test.classes.dtype) == (np.uint8, np.int64)


def test_a_relative_path_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / CIFAR10.base_folder)
    (test,) = read_cifar10(Path(), ("test",))
    assert len(test.classes) == EACH


@pytest.mark.parametrize("name", [*BATCHES, "batches.meta"])
def test_a_missing_or_changed_file_is_refused_before_it_is_unpickled(folder: Path, tmp_path: Path, name: str) -> None:
    batches = folder / CIFAR10.base_folder
    trap = tmp_path / "unpickled"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trap,)

    (batches / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=f"{batches} does not hold all files of CIFAR-10"):
        read_cifar10(batches, ("train", "test"))
    (batches / name).unlink()
    with pytest.raises(DataError, match=f"{batches} does not hold all files of CIFAR-10"):
        read_cifar10(batches, ("train", "test"))
    assert not trap.exists()


def test_another_folder_or_label_set_has_no_batches(folder: Path) -> None:
    assert find_batches(folder.parent) is None
    with pytest.raises(DataError, match=r"has no folders test/<class>"):
        open_splits(folder, "imagenet1k", ("test",))


def test_without_torchvision_the_answer_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=r"cifar-10-batches-py is read with torchvision.*pip install -e '\.\[train\]'$"):
        open_splits(folder, "cifar10", ("test",))
