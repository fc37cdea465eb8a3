"""Folders and ZIP files: which files are pictures of which class, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from models.data.errors import DataError
from models.data.listing import list_pictures
from models.images.preprocess import PRESETS
from tests.data_sets import WORDS, colours, opened, refuse, tree, write_tree, write_zip

CIFAR10 = PRESETS["cifar10"]


def only_test(folder: str = "test/") -> dict[str, bytes]:
    found = {name: content for name, content in tree().items() if name.startswith("test/")}
    return {name.replace("test/", folder, 1): content for name, content in found.items()}


WRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "a folder with test alone": ("test", lambda tmp: write_tree(tmp / "set", only_test())),
    "a zip with test alone": ("test", lambda tmp: write_zip(tmp / "set.zip", only_test())),
    "a folder with val alone": ("val", lambda tmp: write_tree(tmp / "set", only_test("val/"))),
    "a folder in a folder": ("test", lambda tmp: write_tree(tmp, only_test("set/test/"))),
    "foreign classes in train": ("test", lambda tmp: write_tree(tmp / "set", {**tree(), "train/unicorn/1.png": b""})),
    "classes alone, in a folder": ("", lambda tmp: write_tree(tmp / "set", only_test(""))),
    "classes alone, in a zip": ("", lambda tmp: write_zip(tmp / "set.zip", only_test(""))),
    "classes in a folder of a zip": ("", lambda tmp: write_zip(tmp / "set.zip", {**only_test("all/"), "README": b""})),
    "with a text beside them": ("", lambda tmp: write_tree(tmp / "set", {**only_test(""), "README": b"read me"})),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_test_pictures_are_found_in_every_layout(tmp_path: Path, kind: str) -> None:
    folder, write = WRITERS[kind]
    found = opened(write(tmp_path))
    expected = sorted(colours(2, 2), key=lambda entry: WORDS[entry[0]])
    assert found.folder == folder
    assert found.classes.tolist() == [number for number, _ in expected]
    for i, (_, picture) in enumerate(expected):
        assert np.array_equal(np.asarray(found.source.open(i, CIFAR10)[0]), np.asarray(picture))


def test_files_outside_of_class_folders_are_ignored(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", only_test() | {"test/1.png": b"", "1.png": b"", "README/1.txt": b""})
    assert len(opened(path)) == 20


def test_test_is_taken_before_val(tmp_path: Path) -> None:
    assert len(opened(write_zip(tmp_path / "set.zip", only_test() | {"val/cat/1.png": b""}))) == 20


def test_a_class_may_be_missing_but_an_unknown_one_is_refused(tmp_path: Path) -> None:
    files, path = {name: content for name, content in only_test("").items() if "cat" not in name}, tmp_path / "set.zip"
    assert WORDS.index("cat") not in opened(write_zip(path, files)).classes
    assert "unicorn is not a class of cifar10, which has airplane" in refuse(
        write_zip(path, files | {"unicorn/1.png": b""})
    )
    split = {f"test/{name}": content for name, content in files.items()} | {"test/unicorn/1.png": b""}
    assert "test/unicorn is not a class of cifar10" in refuse(write_zip(path, split))
    assert refuse(write_zip(path, split)).endswith("truck")
    assert refuse(write_zip(path, split | {"test/yeti/1.png": b""})).endswith("truck (and 1 more such)")


def test_a_data_set_without_test_pictures_is_refused(tmp_path: Path) -> None:
    words = "has no folders test/<class> (or val/<class>), and none at its top that is a class of cifar10"
    train = {name: content for name, content in tree().items() if name.startswith("train/")}
    for files in (train, {"a/b/c/1.png": b""}, {"1.png": b""}, {}, {"a/cat/1.png": b"", "b/cat/1.png": b""}):
        assert words in refuse(write_zip(tmp_path / "set.zip", files))
    assert words in refuse(write_tree(tmp_path / "set", train))
    assert words in refuse(write_zip(tmp_path / "set.zip", {"1/1.png": b""}))
    assert "train-images" not in refuse(write_tree(tmp_path / "digits", {"cat/1.png": b""}), "mnist")


def test_a_plain_folder_is_listed_as_by_torchvisions_image_folder(tmp_path: Path) -> None:
    """CIFAR-10's classes are in alphabetical order, which is how ImageFolder numbers folders."""
    files = tree() | {"test/cat/more/deep.png": b"", "test/cat/another/deep.png": b""}
    theirs = ImageFolder(write_tree(tmp_path / "set", files) / "test")
    listing = list_pictures(tmp_path / "set", "cifar10", ("test",))
    assert theirs.classes == WORDS
    found = [(str(tmp_path / "set" / name), number) for name, number in listing.splits[0].pictures]
    assert sorted(found) == sorted(theirs.samples)
    assert found == sorted(found)


def test_one_folder_may_surround_the_splits_but_not_two(tmp_path: Path) -> None:
    """One folder may surround a data set; two folders are one too many."""
    (found,) = list_pictures(write_tree(tmp_path / "one", only_test("a/test/")), "cifar10", ("test",)).splits
    assert len(found.pictures) == 20
    with pytest.raises(DataError, match="has no folders"):
        list_pictures(write_tree(tmp_path / "two", only_test("a/b/test/")), "cifar10", ("test",))


def test_training_pictures_are_not_listed_for_a_test(tmp_path: Path) -> None:
    """ImageNet has over a million of them; a foreign class among them is no error then."""
    path = write_tree(tmp_path / "set", tree() | {"train/unicorn/1.png": b""})
    assert len(list_pictures(path, "cifar10", ("test",)).splits) == 1
    with pytest.raises(DataError, match="train/unicorn is not a class"):
        list_pictures(path, "cifar10", ("train", "test"))


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", ".hidden/1.png", "__MACOSX/1.png"])
@pytest.mark.parametrize("write", [write_tree, write_zip])
def test_hidden_files_and_litter_of_systems_are_skipped(
    tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    path = write(tmp_path / "set", only_test() | {f"test/cat/{name}": b"", "test/.cache/1.png": b""})
    (found,) = list_pictures(path, "cifar10", ("test",)).splits
    assert len(found.pictures) == 20


@pytest.mark.parametrize(("folder", "number"), [("tench", 0), ("TENCH", 0), ("n01440764", 0), ("great_white_shark", 2)])
def test_a_class_is_named_by_its_word_in_any_case_or_its_wordnet_id(tmp_path: Path, folder: str, number: int) -> None:
    """The first and the third class of ImageNet, in the order of its WordNet ids."""
    path = write_tree(tmp_path / "set", {f"test/{folder}/1.png": b""})
    (found,) = list_pictures(path, "imagenet1k", ("test",)).splits
    assert found.pictures == [(f"test/{folder}/1.png", number)]


def test_the_folder_of_training_pictures_is_not_even_entered_for_a_test(tmp_path: Path) -> None:
    """With its training pictures, the second data set would make two."""
    path = write_tree(tmp_path / "set", only_test() | {"copy/train/cat/1.png": b""})
    (found,) = list_pictures(path, "cifar10", ("test",)).splits
    assert len(found.pictures) == 20
    with pytest.raises(DataError, match=r"holds several data sets: \., copy$"):
        list_pictures(path, "cifar10", ("train", "test"))


@pytest.mark.parametrize(("folder", "number"), [("Cardigan", 264), ("cardigan", 474), ("CARDIGAN", None)])
def test_a_name_that_could_be_two_classes_is_neither(tmp_path: Path, folder: str, number: int | None) -> None:
    """ImageNet's class 264 is a dog, its class 474 a piece of clothing."""
    path = write_zip(tmp_path / "set.zip", {f"test/{folder}/1.png": b""})
    if number is None:
        with pytest.raises(DataError, match="test/CARDIGAN is not a class of imagenet1k"):
            list_pictures(path, "imagenet1k", ("test",))
    else:
        assert list_pictures(path, "imagenet1k", ("test",)).splits[0].pictures == [(f"test/{folder}/1.png", number)]
