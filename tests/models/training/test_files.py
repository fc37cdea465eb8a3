"""What surrounds a run: its recipe, its files, and the checkpoint in the box."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import get_model
from models.checkpoints.catalogue import Catalogue
from models.checkpoints.manifest import manifest
from models.data.arrays import read_npz
from models.images.preprocess import PRESETS
from models.install.import_ import write_checkpoint
from models.networks.variants import VARIANTS
from models.training.accuracy import measure
from models.training.curves import Epoch, write_curves
from models.training.dataset import read_data
from models.training.errors import TrainingError
from models.training.recipes import recipe_for
from models.training.state import load_state, save_state
from tests.cards import checkpoint


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_older_files_whole(tmp_path: Path) -> None:
    state, out, network = tmp_path / "state", tmp_path / "out.safetensors", get_model("lenet5")
    card = checkpoint("lenet5", "mnist")
    save_state(state, {"seed": 1}, {"x": torch.zeros(3)})
    write_checkpoint(out, network, card)
    before = state.read_bytes(), out.read_bytes()
    with full_disk(50_000):
        with pytest.raises(
            TrainingError, match=r"state could not be written \(File too large\); the older file is still"
        ):
            save_state(state, {"seed": 1}, {"x": torch.zeros(10**6)})
        with pytest.raises(OSError, match=r"out\.safetensors could not be written"):
            write_checkpoint(out, network, card)
    assert (state.read_bytes(), out.read_bytes()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"state", "out.safetensors"}
    assert load_state(state, {"seed": 1}) is not None


def test_a_recipe_is_told_in_full() -> None:
    told = str(replace(recipe_for(VARIANTS["lenet5"], "mnist"), epochs=3, batch_size=8, seed=7, rotation=5.0))
    assert told == (
        "SGD, one cycle to 0.05, 3 epochs of batch 8, weight decay 0.0001, rotation 5 degrees, scaling 0.1, "
        "translation 2 pixels, mnist preprocessing, seed 7"
    )
    photographs = str(recipe_for(VARIANTS["vgg16"], "imagenet1k"))
    assert "momentum 0.9, rate 0.01 times 0.1 every 20 epochs, 74 epochs of batch 256" in photographs
    assert "random region of (0.08, 1.0) of the area, flip, colour PCA 0.1" in photographs


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("label_set", ["imagenet1k", "cifar10", "mnist"])
def test_every_variant_has_a_recipe_for_the_pictures_that_it_takes(variant: str, label_set: str) -> None:
    row = VARIANTS[variant]
    preprocess = PRESETS[recipe_for(row, label_set).preset]
    in_box = (variant, label_set) in {("googlenet", "cifar10"), ("inception_v2", "cifar10")}
    assert (preprocess.channels, preprocess.side) == ((3, 64) if in_box else row.input_shape[::2])


def test_curves_are_a_table_and_a_chart(tmp_path: Path) -> None:
    epochs = [Epoch(1, 0.05, 2.25, 20.5, 30.0, 75.0), Epoch(2, 0.1, 1.5, 50.0, 55.0, 90.0)]
    write_curves(tmp_path / "out.csv", epochs, "a network")
    assert (tmp_path / "out.csv").read_text() == (
        "number,rate,loss,training_top1,test_top1,test_top5\n1,0.05,2.25,20.5,30.0,75.0\n2,0.1,1.5,50.0,55.0,90.0\n"
    )
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_checkpoint_in_the_box_reads_digits(test_data: Path, tmp_path: Path) -> None:
    path = test_data / "mnist.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: no MNIST")
    # A hundred training digits do: nothing is learnt here, and 60,000 take seconds to read.
    train, test = read_npz(path, ("train", "test"))
    few = {"train_images": train.pictures[:100], "train_labels": train.classes[:100]}
    np.savez(tmp_path / "few.npz", **few, test_images=test.pictures, test_labels=test.classes)
    data = read_data(tmp_path / "few.npz", "mnist", PRESETS["mnist"], keep=True)
    box = Catalogue(tmp_path).find("lenet5")
    assert box.path is not None
    assert len(data.test) == 10_000
    top1 = measure(get_model("lenet5", weights=box.path), data.test, torch.device("cpu")).top1
    assert top1 >= 98.7
    (row,) = (row for row in manifest() if row.variant == "lenet5")
    # Another build of torch may decide a doubtful digit otherwise.
    assert top1 == pytest.approx(row.top1, abs=0.05)
