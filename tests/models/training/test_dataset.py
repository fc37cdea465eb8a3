"""Every kind of data set gives the same pictures and classes, and a wrong one a clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.checkpoints.labels import labels
from models.data.errors import DataError
from models.images.preprocess import PRESETS, crop, finished, picture_to_crop
from models.training.dataset import DataSet, read_data
from tests.data_sets import WORDS, colours, encoded, tree, write_digits, write_tree, write_zip

CIFAR10, MNIST = PRESETS["cifar10"], PRESETS["mnist"]


def read(path: Path, *, keep: bool = True, fail_unreadable: bool = False) -> DataSet:
    return read_data(path, "cifar10", CIFAR10, keep=keep, fail_unreadable=fail_unreadable)


def refuse(path: Path, label_set: str = "cifar10") -> str:
    with pytest.raises(DataError) as caught:
        read_data(path, label_set, PRESETS["mnist" if label_set == "mnist" else "cifar10"], keep=True)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def write_npz(path: Path) -> Path:
    """The pictures of ``tree()`` in the order of its folders, by the names of the classes."""
    arrays = {}
    for split, names, each, seed in (("train", "x_train y_train", 4, 1), ("test", "x_test y_test", 2, 2)):
        assert split
        listed = sorted(colours(each, seed), key=lambda entry: WORDS[entry[0]])
        pictures, numbers = names.split()
        arrays[pictures] = np.stack([np.asarray(picture) for _, picture in listed])
        arrays[numbers] = np.array([[number] for number, _ in listed], np.uint8)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda tmp: write_tree(tmp / "set", tree()),
    "zip": lambda tmp: write_zip(tmp / "set.zip", tree()),
    "zip with a folder of its own": lambda tmp: write_zip(
        tmp / "set.zip", {f"cifar10/{name}": content for name, content in tree().items()}
    ),
    "zip with a Mac's litter": lambda tmp: write_zip(
        tmp / "set.zip", {**tree(), "train/cat/.DS_Store": b"x", "__MACOSX/train/cat/a.png": b"x"}
    ),
    "val in place of test": lambda tmp: write_zip(
        tmp / "set.zip", {name.replace("test/", "val/"): content for name, content in tree().items()}
    ),
    "npz": lambda tmp: write_npz(tmp / "set.npz"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("keep", [True, False])
def test_each_kind_of_data_set_gives_the_same_pictures(tmp_path: Path, kind: str, keep: bool) -> None:
    found = read(WRITERS[kind](tmp_path), keep=keep)
    assert (len(found.train), len(found.test), found.unreadable) == (40, 20, [])
    for split, each, seed in ((found.train, 4, 1), (found.test, 2, 2)):
        expected = sorted(colours(each, seed), key=lambda entry: WORDS[entry[0]])
        assert split.classes.tolist() == [number for number, _ in expected]
        for i, (_, picture) in enumerate(expected):
            assert np.array_equal(split.cut(np.array([i]))[0], np.asarray(picture))


@pytest.mark.parametrize("size", [(32, 32), (200, 90), (1200, 1600)])
@pytest.mark.parametrize("keep", [True, False])
def test_training_sees_pictures_as_serving_does(tmp_path: Path, size: tuple[int, int], keep: bool) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    waves = np.stack([np.sin(x / 7) + np.cos(y / 5), np.sin(y / 3), np.cos(x * y / 999)], 2) * 60 + 128
    photograph = encoded(Image.fromarray(waves.clip(0, 255).astype(np.uint8)), "JPEG")
    name = "train/cat/0000.jpg"
    found = read(write_zip(tmp_path / "set.zip", {**tree(train=1), name: photograph}), keep=keep)
    i = next(i for i in range(len(found.train)) if found.train.source.name(int(found.train.numbers[i])) == name)
    served = picture_to_crop(photograph, CIFAR10, max_pixels=80_000_000)
    assert served.shape == (64, 64, 3)
    assert np.array_equal(finished(found.train.cut(np.array([i])), CIFAR10)[0], served)


def test_training_sees_digits_as_serving_does(tmp_path: Path) -> None:
    path = write_digits(tmp_path / "mnist.npz", 20, 10)
    found = read_data(path, "mnist", MNIST, keep=True)
    with np.load(path) as arrays:
        picture = Image.fromarray(arrays["train_images"][3])
        assert found.train.classes.tolist() == arrays["train_labels"].tolist()
    assert np.array_equal(finished(found.train.cut(np.array([3])), MNIST)[0], crop(picture, MNIST))


def test_the_digest_tells_data_sets_apart(tmp_path: Path) -> None:
    files = tree()
    first = read(write_zip(tmp_path / "a.zip", files)).digest
    assert read(write_tree(tmp_path / "b", files), keep=False).digest == first
    moved = {name.replace("train/cat/0012", "train/dog/0012"): content for name, content in files.items()}
    assert moved.keys() != files.keys()
    changed = {**files, "train/cat/0012.png": encoded(colours(1, 5)[0][1])}
    assert len({first, *(read(write_zip(tmp_path / "c.zip", each)).digest for each in (moved, changed))}) == 3


def test_the_digest_covers_the_classes(tmp_path: Path) -> None:
    """The same pictures in the same order, of which the first two have each other's class."""
    path = write_npz(tmp_path / "set.npz")
    first = read(path).digest
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays}
    numbers = content["y_train"]
    numbers[[0, -1]] = numbers[[-1, 0]]
    np.savez(path, **content)
    assert read(path).digest != first


def test_unreadable_pictures_are_left_out_and_listed(tmp_path: Path) -> None:
    files = tree()
    bad = {"train/cat/0012.png": b"no picture", "test/dog/0010.png": files["test/dog/0010.png"][:40]}
    assert bad.keys() <= files.keys()
    path = write_zip(tmp_path / "set.zip", files | bad)
    found = read(path)
    assert (len(found.train), len(found.test)) == (39, 19)
    assert [line.split(":")[0] for line in found.unreadable] == list(bad)
    assert "truncated or damaged" in found.unreadable[1]
    names = [found.train.source.name(int(number)) for number in found.train.numbers]
    assert "train/cat/0012.png" not in names
    # What is behind the gap keeps its class and its picture.
    i = names.index("train/ship/0033.png")
    assert found.train.classes[i] == WORDS.index("ship")
    assert np.array_equal(found.train.cut(np.array([i]))[0], np.asarray(colours(4, 1)[33][1]))
    with pytest.raises(DataError, match=r"train/cat/0012\.png: the bytes are no picture"):
        read(path, fail_unreadable=True)


def test_a_damaged_entry_of_a_zip_is_an_unreadable_picture(tmp_path: Path) -> None:
    files, path = tree(), tmp_path / "set.zip"
    content = write_zip(path, files).read_bytes()
    at = content.index(files["train/frog/0024.png"])
    path.write_bytes(content[: at + 50] + b"\xff" * 8 + content[at + 58 :])
    found = read(path)
    assert len(found.train) == 39
    assert found.unreadable[0].startswith("train/frog/0024.png: Bad CRC-32")


def test_a_class_of_nothing_but_unreadable_pictures_is_empty(tmp_path: Path) -> None:
    files = tree()
    files |= {name: b"" for name in files if name.startswith("train/cat/")}
    assert "class 'cat' of cifar10 has no pictures in train" in refuse(write_zip(tmp_path / "set.zip", files))


def test_missing_and_unknown_classes_are_named(tmp_path: Path) -> None:
    files, path = tree(), tmp_path / "set.zip"
    without = {name: content for name, content in files.items() if "/cat/" not in name}
    assert "class 'cat' of cifar10 has no pictures in train" in refuse(write_zip(path, without))
    foreign = {**files, "train/unicorn/1.png": b"", "train/yeti/1.png": b""}
    text = refuse(write_zip(path, foreign))
    assert "train/unicorn is not a class of cifar10, which has airplane, automobile" in text
    assert "(and 1 more such)" in text
    untested = {name: content for name, content in files.items() if name.startswith("train")}
    assert "has no folders train/<class> and test/<class>" in refuse(write_zip(path, untested))
    twice = {**files, **{f"copy/{name}": content for name, content in files.items()}}
    assert "holds several data sets: ., copy" in refuse(write_zip(path, twice))
    path.write_bytes(b"no archive")
    assert "neither a folder nor a whole ZIP file" in refuse(path)
    assert "there is no" in refuse(tmp_path / "nothing")


def test_folders_may_carry_wordnet_ids_or_words(tmp_path: Path) -> None:
    picture = encoded(Image.new("RGB", (8, 8)))
    names = [label.wordnet_id if i % 2 else label.word.replace(" ", "_")
             for i, label in enumerate(labels("imagenet1k"))]  # fmt: skip
    files = {f"{split}/{name}/1.png": picture for split in ("train", "val") for name in names}
    found = read_data(write_zip(tmp_path / "a.zip", files), "imagenet1k", PRESETS["half-224"], keep=False)
    assert sorted(found.train.classes.tolist()) == list(range(1000))
    by_name = {found.train.source.name(i): number for i, number in enumerate(found.train.classes.tolist())}
    assert by_name["train/tench/1.png"] == 0
    assert by_name["train/n01443537/1.png"] == 1
    assert all(labels("imagenet1k")[i].word in name for name, i in by_name.items() if "ardigan" in name)
    # A dog and a piece of clothing share this name but for its first letter.
    ambiguous = {**files, "train/CARDIGAN/1.png": picture}
    assert "train/CARDIGAN is not a class" in refuse(write_zip(tmp_path / "b.zip", ambiguous), "imagenet1k")


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    good = {
        "train_images": np.zeros((20, 8, 8, 3), np.uint8),
        "train_labels": np.arange(20) % 10,
        "test_images": np.zeros((10, 8, 8, 3), np.uint8),
        "test_labels": np.arange(10),
    }
    for bad, words in (
        ({"train_labels": np.arange(20)}, "class numbers from 0 to 19 in train; cifar10 has 0 to 9"),
        ({"test_labels": np.arange(10) - 1}, "class numbers from -1 to 8 in test"),
        ({"test_labels": np.arange(9)}, "are not uint8"),
        ({"train_images": np.zeros((20, 8, 8, 3))}, "float64 pictures"),
        ({"train_images": np.zeros((20, 8, 8, 4), np.uint8)}, "are not uint8"),
        ({"test_labels": np.zeros(10, int)}, "class 'automobile' of cifar10 has no pictures in test"),
    ):
        np.savez(path, **{**good, **bad})  # type: ignore[arg-type]
        assert words in refuse(path)
    path.write_bytes(b"no archive")
    assert "is not an .npz file with train_images" in refuse(path)


def test_the_watcher_sees_both_splits_as_one(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = write_digits(tmp_path / "mnist.npz", 150, 70)
    read_data(path, "mnist", MNIST, keep=False, watch=lambda done, total: seen.append((done, total)))
    assert seen == sorted(set(seen))
    assert seen[0] == (1, 220)
    assert {(150, 220), (151, 220), (220, 220)} <= set(seen)
