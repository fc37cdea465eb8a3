"""MNIST in each form in which it is published, whole and damaged."""

from __future__ import annotations

import gzip
import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from models.data.arrays import Bytes
from models.data.errors import DataError
from models.data.listing import SplitName
from models.data.mnist import read_idx, read_mnist
from tests.data_sets import Data, arrays, flat

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: Bytes) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


SPLITS: tuple[SplitName, ...] = ("train", "test")


def write_folder(folder: Path, data: Data, *, dotted: bool = False, zipped: bool = False) -> None:
    for name, array in zip(FILES, flat(data), strict=True):
        name = name.replace("-idx", ".idx") if dotted else name
        content = idx(array.astype(np.uint8))
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)


def same(first: Data, second: Data) -> bool:
    pairs = zip(flat(first), flat(second), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_of_idx_files(tmp_path: Path, dotted: bool, zipped: bool) -> None:
    data = arrays()
    write_folder(tmp_path, data, dotted=dotted, zipped=zipped)
    assert same(read_mnist(tmp_path, SPLITS), data)


def npz(data: Data, names: tuple[str, ...] = ("train_images", "train_labels", "test_images", "test_labels")) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **dict(zip(names, flat(data), strict=True)))  # type: ignore[arg-type]
    return out.getvalue()


def refuse(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_mnist(path, SPLITS)
    assert str(path if path.suffix == ".npz" else path.name) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("split", [0, 1])
def test_the_files_of_the_other_split_are_not_needed(tmp_path: Path, split: int) -> None:
    data = arrays()
    write_folder(tmp_path, data)
    for name in FILES[2:] if split == 0 else FILES[:2]:
        (tmp_path / name).unlink()
    assert same(read_mnist(tmp_path, SPLITS[split : split + 1]), data[split : split + 1])


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_folder(tmp_path, arrays())
    (tmp_path / missing).unlink()
    assert missing in refuse(tmp_path)


def test_pictures_and_digits_must_fit_each_other(tmp_path: Path) -> None:
    data = arrays()
    train, test = data
    for bad in (
        [train._replace(classes=train.classes[:5]), test],
        [train, test._replace(pictures=test.pictures[:, :27])],
        [train, test._replace(classes=np.zeros((4, 1), np.int64))],
    ):
        write_folder(tmp_path, bad)
        assert "are not MNIST's" in refuse(tmp_path)


GOOD = idx(np.arange(100, dtype=np.uint8).reshape(4, 25))
DAMAGED = {
    "empty": b"",
    "half a header": GOOD[:3],
    "no sizes": GOOD[:6],
    "truncated": GOOD[:-1],
    "too long": GOOD + b"\0",
    "text": b"this is not an IDX file",
    "not bytes": GOOD[:2] + b"\x0d" + GOOD[3:],
    "not zero": b"\1" + GOOD[1:],
    "sizes whose product overflows": struct.pack(">HBBIII", 0, 8, 3, 2**31, 2**31, 4),
}


def test_an_idx_file_without_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(GOOD)
    assert np.array_equal(read_idx(tmp_path / "file"), np.arange(100).reshape(4, 25))


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_damaged_idx_file_is_refused(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / ("file.gz" if zipped else "file")
    path.write_bytes(gzip.compress(DAMAGED[name]) if zipped else DAMAGED[name])
    with pytest.raises(DataError, match=str(path)):
        read_idx(path)


def test_a_damaged_gzip_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    path, data = tmp_path / "file.gz", gzip.compress(GOOD)
    for place in (0, 3, *range(10, len(data))):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with pytest.raises(DataError):
            read_idx(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError):
            read_idx(path)


def test_no_file_at_all(tmp_path: Path) -> None:
    assert "is not an .npz file with train_images" in refuse(tmp_path / "nothing.npz")
    assert "has no train-images-idx3-ubyte" in refuse(tmp_path / "nothing")


@pytest.mark.parametrize("kind", [9, 11, 12, 13, 14])
def test_numbers_of_another_type_are_refused(tmp_path: Path, kind: int) -> None:
    """The types of IDX files beside unsigned bytes: signed bytes, and integers and reals of two to eight bytes."""
    size = {9: 1, 11: 2, 12: 4, 13: 4, 14: 8}[kind]
    (tmp_path / "file").write_bytes(struct.pack(">HBBI", 0, kind, 1, 5) + bytes(5 * size))
    with pytest.raises(DataError, match="is not a whole IDX file of unsigned bytes: its numbers are"):
        read_idx(tmp_path / "file")


def test_without_torchvision_the_answer_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, arrays())
    monkeypatch.setitem(sys.modules, "torchvision.datasets.mnist", None)
    with pytest.raises(DataError, match=r"IDX files are read with torchvision.*pip install -e '\.\[train\]'$"):
        read_mnist(tmp_path, SPLITS)
