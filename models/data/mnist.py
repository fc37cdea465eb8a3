"""MNIST from disk: one ``.npz`` file, or a folder with the four IDX files as published (gzipped or not)."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.data.arrays import Arrays, Bytes, read_npz
from models.data.errors import DataError, MissingTorchvisionError
from models.data.listing import SplitName

#: What the published files' names begin with.
_PREFIXES: dict[SplitName, str] = {"train": "train", "test": "t10k"}


def read_mnist(path: Path, splits: Sequence[SplitName]) -> list[Arrays]:
    """Reads the splits that are asked for: pictures (N, 28, 28), light ink on dark ground.

    Raises:
        DataError: a file is missing or damaged, or has other contents than MNIST.
    """
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
    # torchvision.datasets.MNIST accepts neither gzipped files nor a folder of any other name than MNIST/raw. Some
    # copies have a dot in place of the second hyphen: train-images.idx3-ubyte.
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"{folder} has no {name} (gzipped or not), and is not an .npz file")


def read_idx(path: Path) -> Bytes:
    """Reads an IDX file of unsigned bytes with torchvision.

    Raises:
        DataError: the file is damaged or truncated, or holds numbers of another type; or torchvision is missing.
    """
    try:
        from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor
    except ImportError as error:
        raise MissingTorchvisionError("IDX files are read with") from error
    try:
        if path.suffix == ".gz":
            with tempfile.NamedTemporaryFile() as unzipped:
                unzipped.write(gzip.decompress(path.read_bytes()))
                unzipped.flush()
                found = read_sn3_pascalvincent_tensor(unzipped.name, strict=False).numpy()
        else:
            # Not strict: a wrong number of bytes fails all the same, with both numbers in the text.
            found = read_sn3_pascalvincent_tensor(str(path), strict=False).numpy()
    except (OSError, EOFError, zlib.error, AssertionError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error) or "it does not begin as IDX files do"
        raise DataError(f"{path} is not a whole IDX file of unsigned bytes: {reason}") from error
    if found.dtype != np.uint8:
        raise DataError(f"{path} is not a whole IDX file of unsigned bytes: its numbers are {found.dtype}")
    pixels: Bytes = found
    return pixels
