"""Batches follow from the seed, the epoch and their number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS
from models.training.batches import steps_in, training_batches
from models.training.dataset import read_data
from models.training.recipes import Recipe, recipe_for
from tests.data_sets import tree, write_zip

CIFAR10 = PRESETS["cifar10"]


@given(st.integers(2, 1000), st.integers(2, 300))
def test_an_epoch_has_every_batch_except_a_last_one_of_one_picture(pictures: int, batch_size: int) -> None:
    sizes = [min(batch_size, pictures - start) for start in range(0, pictures, batch_size)]
    assert steps_in(pictures, batch_size) == len([size for size in sizes if size > 1])


def test_batches_follow_from_seed_and_epoch(tmp_path: Path) -> None:
    recipe: Recipe = replace(recipe_for(VARIANTS["googlenet"], "cifar10"), batch_size=16)
    split = read_data(write_zip(tmp_path / "a.zip", tree()), "cifar10", CIFAR10, keep=True).train

    def epoch(number: int, seed: int = 1) -> list[torch.Tensor]:
        return [batch.crops for batch in training_batches(split, replace(recipe, seed=seed), number)]

    first = epoch(1)
    assert [tuple(crops.shape) for crops in first] == [(16, 64, 64, 3), (16, 64, 64, 3), (8, 64, 64, 3)]
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(1), strict=True))
    assert not torch.equal(first[0], epoch(2)[0])
    assert not torch.equal(first[0], epoch(1, seed=2)[0])
    classes = torch.cat([batch.classes for batch in training_batches(split, recipe, 1)])
    assert sorted(classes.tolist()) == sorted(split.classes.tolist())
