"""Accuracy counts right first answers and right answers among five; that of the checkpoint in the box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import get_model
from models.checkpoints.catalogue import Catalogue
from models.checkpoints.manifest import manifest
from models.data.arrays import read_npz
from models.images.preprocess import PRESETS
from models.training.accuracy import measure
from models.training.dataset import DataSet, read_data
from tests.data_sets import write_digits


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


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    path = write_digits(tmp_path_factory.mktemp("digits") / "mnist.npz")
    return read_data(path, "mnist", PRESETS["mnist"], keep=True)


def test_accuracy_counts_right_answers_first_and_among_five(digits: DataSet) -> None:
    class Fixed(torch.nn.Module):
        """Says 0, 1, 2 ... 9 for every picture."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.arange(10.0).flip(0).expand(len(x), 10)

    assert measure(Fixed(), digits.test, CPU) == (10.0, 50.0)
    few = measure(Fixed(), digits.test, CPU, most=10)
    chosen = digits.test.classes[np.linspace(0, 99, 10).astype(int)]
    assert few == (100 * float((chosen == 0).mean()), 100 * float((chosen < 5).mean()))


def test_dropout_is_off_while_accuracy_is_measured(digits: DataSet) -> None:
    class Unsure(torch.nn.Module):
        """Answers 0 in eval mode, and anything in training mode."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.arange(10.0).flip(0).expand(len(x), 10)
            return torch.rand(len(x), 10) if self.training else logits

    network = Unsure().train()
    assert measure(network, digits.test, CPU) == (10.0, 50.0)
