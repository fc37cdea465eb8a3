"""``train/<class>/...`` and ``test/<class>/...`` in a folder or ZIP file -> the picture files of each class."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.labels import Label, labels
from models.training.errors import DataError

#: What a training set may call its test pictures, the first that is there.
_TEST = ("test", "val")
#: What macOS and Windows leave in folders.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Listing:
    """Picture files by their names, sorted, and how to read one."""

    train: list[tuple[str, int]]
    """Name and class number."""
    test: list[tuple[str, int]]
    read: Callable[[str], bytes]
    """Raises OSError, zipfile.BadZipFile or zlib.error."""


def list_pictures(path: Path, label_set: str) -> Listing:
    """Raises DataError if the folders below ``train`` and ``test`` (or ``val``) are not the label set's classes."""
    if path.is_dir():
        names, read = _walk(path), lambda name: (path / name).read_bytes()
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is no folder, and no whole ZIP file: {error}") from error
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        read = archive.read
    splits = _splits(path, names)
    test = next((name for name in _TEST if name in splits), None)
    if "train" not in splits or test is None:
        raise DataError(f"{path} has no folders train/<class> and test/<class> (or val/<class>)")
    classes = _Names(labels(label_set))
    return Listing(
        _numbered(path, "train", splits["train"], classes, label_set),
        _numbered(path, test, splits[test], classes, label_set),
        read,
    )


def _walk(folder: Path) -> list[str]:
    found = []
    for where, _, files in os.walk(folder, followlinks=True):
        found += [(Path(where) / file).relative_to(folder).as_posix() for file in files]
    return found


def _splits(path: Path, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """split -> class -> names. The splits may lie in a folder of their own, as archives often have one."""
    found: dict[str, dict[str, list[str]]] = {}
    roots = set()
    for name in sorted(names):
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") or part in _LITTER for part in parts):
            continue
        at = next((i for i, part in enumerate(parts[:-2]) if part in ("train", *_TEST)), None)
        if at is None or at > 1:
            continue
        roots.add(parts[:at])
        found.setdefault(parts[at], {}).setdefault(parts[at + 1], []).append(name)
    if len(roots) > 1:
        raise DataError(f"{path} holds several data sets: {', '.join(sorted('/'.join(r) or '.' for r in roots))}")
    return found


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
            unknown.append(folder)
        else:
            found += [(name, number) for name in names]
    if unknown:
        known = [label.word for label in labels(label_set)]
        some = ", ".join(known[:10]) + (" ... (or WordNet ids)" if len(known) > 10 else "")
        raise DataError(f"{path}: {split}/{unknown[0]} is no class of {label_set}, which has {some}{_more(unknown)}")
    check_classes(path, split, {number for _, number in found}, label_set)
    return sorted(found)


def check_classes(path: Path, split: str, present: set[int], label_set: str) -> None:
    """Raises DataError if a class of the label set has no pictures."""
    empty = [label.word for number, label in enumerate(labels(label_set)) if number not in present]
    if empty:
        raise DataError(f"{path}: class {empty[0]!r} of {label_set} has no pictures in {split}{_more(empty)}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more such)" if len(names) > 1 else ""
