"""Batches follow from the seed, the epoch and their number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.images.preprocess import PRESETS, crop
from models.networks.variants import VARIANTS
from models.training.batches import plain_batches, steps_in, training_batches
from models.training.dataset import Split, read_data
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


def alike(count: int) -> Split:
    """The same picture again and again, each time of another class."""
    pixels = np.random.default_rng(3).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    numbers = np.arange(count)
    return Split(None, numbers, numbers, CIFAR10, np.repeat(pixels, count, 0))  # type: ignore[arg-type]


def test_each_epoch_has_an_order_of_its_own() -> None:
    recipe = replace(recipe_for(VARIANTS["googlenet"], "cifar10"), batch_size=10, shift=0, flip=False)
    orders = [[batch.classes.tolist() for batch in training_batches(alike(30), recipe, epoch)] for epoch in (1, 2, 1)]
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != [list(range(start, start + 10)) for start in (0, 10, 20)]


def test_each_batch_and_epoch_draws_numbers_of_its_own() -> None:
    """A picture of one kind is moved in 81 ways: two batches of eight alike would be no chance."""
    recipe = replace(recipe_for(VARIANTS["googlenet"], "cifar10"), batch_size=8, flip=False)
    batches = [batch.crops for epoch in (1, 2) for batch in training_batches(alike(16), recipe, epoch)]
    assert len(batches) == 4
    assert not any(torch.equal(a, b) for i, a in enumerate(batches) for b in batches[:i])


def test_plain_batches_are_crops_as_in_serving_in_the_order_asked_for() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    split = Split(None, np.arange(9), np.arange(9), CIFAR10, pixels)  # type: ignore[arg-type]
    found = list(plain_batches(split, np.array([4, 0, 8, 1, 2]), 2))
    assert [batch.classes.tolist() for batch in found] == [[4, 0], [8, 1], [2]]
    for batch in found:
        for number, ours in zip(batch.classes.tolist(), batch.crops, strict=True):
            assert np.array_equal(ours.numpy(), crop(Image.fromarray(pixels[number]), CIFAR10))
