"""MNIST from disk: one ``.npz`` file, or a folder with the four IDX files as published (gzipped or not)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.data.arrays import Arrays, Bytes, read_npz
from models.data.errors import DataError
from models.data.listing import SplitName

#: What the published files' names begin with.
_PREFIXES: dict[SplitName, str] = {"train": "train", "test": "t10k"}


def read_mnist(path: Path, splits: Sequence[SplitName]) -> list[Arrays]:
    """Pictures (N, 28, 28), light ink on dark ground. Raises DataError if what is asked for is not all there."""
    data = read_npz(path, splits) if path.suffix == ".npz" else [_read_folder(path, split) for split in splits]
    for pictures, digits in data:
        if pictures.ndim != 3 or pictures.shape[1:] != (28, 28) or digits.shape != pictures.shape[:1]:
            raise DataError(f"{path}: pictures {pictures.shape} and digits {digits.shape} are not MNIST's")
    return data


def _read_folder(folder: Path, split: SplitName) -> Arrays:
    prefix = _PREFIXES[split]
    return Arrays(
        read_idx(_find(folder, f"{prefix}-images-idx3-ubyte")),
        read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte")).astype(np.int64),
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
