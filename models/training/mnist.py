"""MNIST from disk: one ``.npz`` file, or a folder with the four IDX files as published (gzipped or not)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from models.training.arrays import Arrays, Bytes, read_npz
from models.training.errors import DataError


def read_mnist(path: Path) -> Arrays:
    """Pictures (N, 28, 28), light ink on dark ground. Raises DataError if it is not all there."""
    data = read_npz(path) if path.suffix == ".npz" else _read_folder(path)
    for pictures, digits in (
        (data.train_pictures, data.train_classes),
        (data.test_pictures, data.test_classes),
    ):
        if pictures.ndim != 3 or pictures.shape[1:] != (28, 28) or digits.shape != pictures.shape[:1]:
            raise DataError(f"{path}: pictures {pictures.shape} and digits {digits.shape} are not MNIST's")
    return data


def _read_folder(folder: Path) -> Arrays:
    return Arrays(
        read_idx(_find(folder, "train-images-idx3-ubyte")),
        read_idx(_find(folder, "train-labels-idx1-ubyte")).astype(np.int64),
        read_idx(_find(folder, "t10k-images-idx3-ubyte")),
        read_idx(_find(folder, "t10k-labels-idx1-ubyte")).astype(np.int64),
    )


def _find(folder: Path, name: str) -> Path:
    # Some copies write a dot in place of the second hyphen: train-images.idx3-ubyte.
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"{folder} has no {name} (gzipped or not), and is no .npz file")


def read_idx(path: Path) -> Bytes:
    """An IDX file of unsigned bytes: 0, 0, type 8, number of dimensions, big-endian sizes, data.

    Raises:
        DataError: another type, or not as many bytes as the header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dimensions = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is no IDX file: {error}") from error
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions)
    if (zero, kind) != (0, 8) or data.size != math.prod(shape):
        raise DataError(f"{path}: {data.size} bytes of type {kind} where {shape} unsigned bytes are promised")
    return data.reshape(shape)
