"""Accuracies that were measured here: kept in a file, and dropped when the weights that they are of have changed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from models.checkpoints import accuracies as module
from models.checkpoints.accuracies import Accuracy, Weights, add_accuracies, file_digest, read_accuracies, weights_of
from models.checkpoints.catalogue import Catalogue
from tests.cards import put

GOOGLENET, INCEPTION = "googlenet@cifar10", "inception_v2@cifar10"


def accuracy(top1: float, *members: Weights, pictures: int = 1000) -> Accuracy:
    return Accuracy(members=members, top1=top1, top5=99.0, pictures=pictures, measured_at="2026-11-28T12:00:00+00:00")


def one(path: Path, name: str = GOOGLENET) -> Weights:
    return weights_of(name, path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name in (GOOGLENET, INCEPTION):
        put(tmp_path, *name.split("@"), top1=61.5)
    return tmp_path


def path_of(cache: Path, name: str = GOOGLENET) -> Path:
    return cache / "checkpoints" / f"{name}.safetensors"


def top1s(catalogue: Catalogue) -> dict[str, float | None]:
    return {row.name: row.top1 for row in catalogue.checkpoints() if row.labels == "cifar10"}


def test_a_digest_is_the_start_of_the_sha_256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_digest(path) == hashlib.sha256(b"abc").hexdigest()[:16]
    assert weights_of("a@b", path).status[1] == 3


def test_what_was_measured_replaces_what_is_published_at_once_and_says_so(cache: Path) -> None:
    catalogue = Catalogue(cache)
    before = top1s(catalogue)
    assert before == {GOOGLENET: 61.5, INCEPTION: 61.5}
    add_accuracies(catalogue.accuracies_path, [accuracy(87.25, one(path_of(cache)), pictures=12_000)])
    assert top1s(catalogue) == before | {GOOGLENET: 87.25}
    found = catalogue.find(GOOGLENET)
    assert (found.top5, found.accuracy_source) == (99.0, "measured here on 12,000 pictures")
    assert accuracy(1.0, one(path_of(cache)), pictures=1).source == "measured here on 1 picture"
    add_accuracies(catalogue.accuracies_path, [accuracy(50.0, one(path_of(cache)))])
    assert top1s(catalogue) == before | {GOOGLENET: 50.0}


def test_the_same_weights_with_another_accuracy_are_the_same_weights(cache: Path) -> None:
    catalogue = Catalogue(cache)
    before = catalogue.find(GOOGLENET)
    add_accuracies(catalogue.accuracies_path, [accuracy(87.25, one(path_of(cache)))])
    rated = catalogue.find(GOOGLENET)
    assert rated != before
    assert rated.same_weights(before)
    put(cache, *GOOGLENET.split("@"))
    assert not catalogue.find(GOOGLENET).same_weights(before)


def test_another_file_drops_it_and_a_copy_of_the_same_content_does_not(cache: Path) -> None:
    catalogue, path = Catalogue(cache), path_of(cache)
    add_accuracies(catalogue.accuracies_path, [accuracy(87.25, one(path))])
    copy = cache / "copy"
    shutil.copy(path, copy)
    copy.replace(path)
    assert top1s(catalogue)[GOOGLENET] == 87.25
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of the weights
    copy.write_bytes(content)
    copy.replace(path)
    assert top1s(catalogue)[GOOGLENET] == 61.5
    put(cache, *GOOGLENET.split("@"), top1=70.0, origin="longer")
    assert top1s(catalogue)[GOOGLENET] == 70.0
    path.unlink()
    assert top1s(catalogue)[GOOGLENET] != 87.25


def test_weights_are_read_once_and_only_if_the_file_is_another(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = path_of(cache), []
    add_accuracies(Catalogue(cache).accuracies_path, [accuracy(87.25, one(path))])

    def counted(file: Path) -> str:
        read.append(file)
        return file_digest(file)

    monkeypatch.setattr(module, "file_digest", counted)
    catalogue = Catalogue(cache)
    assert (top1s(catalogue)[GOOGLENET], read) == (87.25, [])
    copy = cache / "copy"
    shutil.copy(path, copy)
    copy.replace(path)
    for _ in range(2):
        (cache / "checkpoints" / "new").touch()
        (cache / "checkpoints" / "new").unlink()
        assert (top1s(catalogue)[GOOGLENET], read) == (87.25, [path])


def test_an_ensemble_counts_while_all_its_members_are_those_that_were_measured(cache: Path) -> None:
    catalogue = Catalogue(cache)
    weights = [one(path_of(cache, name), name) for name in (INCEPTION, GOOGLENET)]
    add_accuracies(catalogue.accuracies_path, [accuracy(89.0, *weights)])
    ((members, found),) = catalogue.together()
    assert ([member.name for member in members], found.top1) == ([INCEPTION, GOOGLENET], 89.0)
    assert members[1] is catalogue.find(GOOGLENET)
    assert top1s(catalogue) == {GOOGLENET: 61.5, INCEPTION: 61.5}
    # Whoever measures them in another order measures the same.
    add_accuracies(catalogue.accuracies_path, [accuracy(88.0, *weights[::-1])])
    assert [accuracy.top1 for _, accuracy in catalogue.together()] == [88.0]
    assert Catalogue(cache, variants=["googlenet"]).together() == []
    put(cache, *GOOGLENET.split("@"), origin="imported again")
    assert catalogue.together() == []


def test_random_weights_have_no_accuracy_of_their_own(cache: Path) -> None:
    add_accuracies(Catalogue(cache).accuracies_path, [accuracy(87.25, one(path_of(cache)))])
    assert Catalogue(cache, untrained=True).find("googlenet").top1 != 87.25


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 2, "accuracies": []}', '{"accuracies": [{"top1": 101}]}', '"' + "\\ud800" + '"']
)
def test_a_file_that_cannot_be_used_is_left_out_and_replaced(cache: Path, content: str) -> None:
    told: list[Path] = []
    catalogue = Catalogue(cache, left_out=lambda path, _why: told.append(path))
    catalogue.accuracies_path.write_text(content)
    assert top1s(catalogue)[GOOGLENET] == 61.5
    assert told == [catalogue.accuracies_path]
    add_accuracies(catalogue.accuracies_path, [accuracy(87.25, one(path_of(cache)))])
    assert [found.top1 for found in read_accuracies(catalogue.accuracies_path)] == [87.25]
    assert top1s(catalogue)[GOOGLENET] == 87.25
