"""The picture files of each class, from ``train/<class>/...`` and ``test/<class>/...`` in a folder or ZIP file.

torchvision's ImageFolder is not used, although it lists folders too: it numbers classes by the order of the folders
rather than by the label set, counts an empty folder as a class, and reads no ZIP file. Evaluation on a folder would
also need torchvision then, which a machine that only serves does not have.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from models.checkpoints.labels import Label, labels
from models.data.errors import DataError

SplitName = Literal["train", "test"]
#: Names that the folder of the test pictures may have; the first that is there counts.
_TEST = ("test", "val")
SPLIT_FOLDERS = ("train", *_TEST)
#: Files and folders that macOS and Windows leave behind.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Listed(NamedTuple):
    """The picture files of a split, sorted."""

    folder: str
    """Its name in the data set; empty if the data set consists of class folders alone."""
    pictures: list[tuple[str, int]]
    """File name and class number."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The picture files of some splits, and the function that reads one."""

    splits: list[Listed]
    """In the order in which they were asked for."""
    read: Callable[[str], bytes]
    """Raises OSError, zipfile.BadZipFile or zlib.error."""


def list_pictures(path: Path, label_set: str, splits: Sequence[SplitName]) -> Listing:
    """Lists the splits that are asked for. If that is ``test`` alone, the top folders may be the classes themselves.

    Raises:
        DataError: a split is missing, or one of its folders is not a class of the label set.
    """
    names, read = _contents(path, splits)
    classes, found = _Names(labels(label_set)), _splits(path, names)
    own = {"train": "train", "test": next((name for name in _TEST if name in found), "test")}
    chosen = {own[split]: found[own[split]] for split in splits if own[split] in found}
    if not found and list(splits) == ["test"]:
        chosen = {"": _top_folders(names, classes)}
    if len(chosen) < len(splits) or not all(chosen.values()):
        wanted = " and ".join(f"{split}/<class>" for split in splits)
        raise DataError(
            f"{path} has no folders {wanted} (or val/<class>)"
            + (f", and none at its top that is a class of {label_set}" if "train" not in splits else "")
        )
    return Listing([Listed(f, _numbered(path, f, each, classes, label_set)) for f, each in chosen.items()], read)


def _contents(path: Path, splits: Sequence[SplitName]) -> tuple[list[str], Callable[[str], bytes]]:
    """The names of all files, sorted, without hidden ones and litter; and the function that reads one."""
    if path.is_dir():
        names, read = _walk(path, "train" not in splits), lambda name: (path / name).read_bytes()
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is neither a folder nor a whole ZIP file: {error}") from error
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        read = archive.read

    def litter(name: str) -> bool:
        return any(part.startswith(".") or part in _LITTER for part in PurePosixPath(name).parts)

    return sorted(name for name in names if not litter(name)), read


def _walk(folder: Path, without_train: bool) -> list[str]:
    found = []
    for where, folders, files in os.walk(folder, followlinks=True):
        place = Path(where).relative_to(folder)
        if without_train and len(place.parts) < 2:
            # ImageNet's train has 1.3 million files: listing them takes longer than evaluating on the 50,000 others.
            folders[:] = [name for name in folders if name != "train"]
        found += [(place / file).as_posix() for file in files]
    return found


def _splits(path: Path, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Split -> class folder -> file names. One folder may surround all splits, as is usual in archives."""
    found: dict[str, dict[str, list[str]]] = {}
    roots = set()
    for name in names:
        parts = PurePosixPath(name).parts
        at = next((i for i, part in enumerate(parts[:-2]) if part in SPLIT_FOLDERS), None)
        if at is None or at > 1:
            continue
        roots.add(parts[:at])
        found.setdefault(parts[at], {}).setdefault(parts[at + 1], []).append(name)
    if len(roots) > 1:
        raise DataError(f"{path} holds several data sets: {', '.join(sorted('/'.join(r) or '.' for r in roots))}")
    return found


def _top_folders(names: Iterable[str], classes: _Names) -> dict[str, list[str]]:
    """Class folder -> file names, where there are no splits. One folder may surround all classes."""
    parted = [(name, PurePosixPath(name).parts) for name in names]
    for at in range(2):
        found: dict[str, list[str]] = {}
        for name, parts in parted:
            if len(parts) > at + 1:
                found.setdefault(parts[at], []).append(name)
        if any(classes.number(folder) is not None for folder in found):
            return found
        if len(found) != 1:
            break
    return {}


class _Names:
    """Class numbers by the names that folders may have: the class's word or its WordNet id.

    Upper and lower case count only where two classes differ in nothing else: ImageNet has Cardigan, a dog, and
    cardigan, a piece of clothing. A name that could be either is neither."""

    def __init__(self, classes: Iterable[Label]) -> None:
        self.exact: dict[str, list[int]] = {}
        self.folded: dict[str, list[int]] = {}
        for number, label in enumerate(classes):
            self.exact.setdefault(label.word, []).append(number)
            self.folded.setdefault(label.word.casefold(), []).append(number)
            if label.wordnet_id is not None:
                self.exact[label.wordnet_id] = [number]

    def number(self, folder: str) -> int | None:
        word = folder.replace("_", " ")
        found = self.exact.get(word) or self.folded.get(word.casefold(), [])
        return found[0] if len(found) == 1 else None


def _numbered(
    path: Path, split: str, folders: dict[str, list[str]], classes: _Names, label_set: str
) -> list[tuple[str, int]]:
    found, unknown = [], []
    for folder, names in folders.items():
        number = classes.number(folder)
        if number is None:
            unknown.append(f"{split}/{folder}" if split else folder)
        else:
            found += [(name, number) for name in names]
    if unknown:
        known = [label.word for label in labels(label_set)]
        some = ", ".join(known[:10]) + (" ... (or WordNet ids)" if len(known) > 10 else "")
        raise DataError(f"{path}: {unknown[0]} is not a class of {label_set}, which has {some}{and_more(unknown)}")
    return sorted(found)


def and_more(names: list[str]) -> str:
    """The words that follow the first of several names: how many more there are."""
    return f" (and {len(names) - 1} more such)" if len(names) > 1 else ""
