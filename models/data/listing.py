"""``train/<class>/...`` and ``test/<class>/...`` in a folder or ZIP file -> the picture files of each class."""

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
#: What a data set may call its test pictures, the first that is there.
_TEST = ("test", "val")
SPLIT_FOLDERS = ("train", *_TEST)
#: What macOS and Windows leave in folders.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Listed(NamedTuple):
    """The picture files of a split, sorted."""

    folder: str
    """What the data set calls it; empty if classes are all that it has."""
    pictures: list[tuple[str, int]]
    """Name and class number."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Picture files by their names, and how to read one."""

    splits: list[Listed]
    """As they were asked for."""
    read: Callable[[str], bytes]
    """Raises OSError, zipfile.BadZipFile or zlib.error."""


def list_pictures(path: Path, label_set: str, splits: Sequence[SplitName]) -> Listing:
    """The splits that are asked for; where that is ``test`` alone, the classes may lie in the set's own top folders.

    Raises:
        DataError: a split is not there, or its folders are not classes of the label set.
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
    """The names of all files but a system's litter, sorted, and what reads one."""
    if path.is_dir():
        names, read = _walk(path, "train" not in splits), lambda name: (path / name).read_bytes()
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is no folder, and no whole ZIP file: {error}") from error
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
            # ImageNet's has 1.3 million files, which take longer to list than its 50,000 others to look at.
            folders[:] = [name for name in folders if name != "train"]
        found += [(place / file).as_posix() for file in files]
    return found


def _splits(path: Path, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """split -> class -> names. The splits may lie in a folder of their own, as archives often have one."""
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
    """class -> names, where classes are all that there is; they, too, may lie in a folder of their own."""
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
    """Class numbers by folder name: the word, in any case if that is enough, or the WordNet id. A name that two classes
    share stands for neither; ImageNet has Cardigan, a dog, and cardigan."""

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
        raise DataError(f"{path}: {unknown[0]} is no class of {label_set}, which has {some}{and_more(unknown)}")
    return sorted(found)


def and_more(names: list[str]) -> str:
    """What follows the first of several."""
    return f" (and {len(names) - 1} more such)" if len(names) > 1 else ""
