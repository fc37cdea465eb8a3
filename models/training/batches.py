"""Batches of uint8 crops, made ahead by threads. A batch depends on the seed, the epoch and its number alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from models.data.ahead import ahead
from models.data.arrays import Numbers
from models.images.preprocess import finished
from models.training.augment import drawn
from models.training.dataset import Split
from models.training.recipes import Recipe


class Batch(NamedTuple):
    """uint8 (N, side, side, channels), and class numbers (N,)."""

    crops: torch.Tensor
    classes: torch.Tensor


def steps_in(pictures: int, batch_size: int) -> int:
    """The number of batches in an epoch. A last batch of one picture is left out: batch norm needs two values."""
    steps, rest = divmod(pictures, batch_size)
    return max(1, steps + (rest > 1))


def training_batches(split: Split, recipe: Recipe, epoch: int) -> Iterator[Batch]:
    """Yields the batches of one epoch, in a random order of its own."""
    order = np.random.default_rng((recipe.seed, epoch)).permutation(len(split))

    def make(step: int) -> Batch:
        random = np.random.default_rng((recipe.seed, epoch, step))
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        crops = finished(drawn(split, chosen, recipe, random), split.preprocess)
        return Batch(torch.from_numpy(crops), torch.from_numpy(split.classes[chosen]))

    return ahead(make, steps_in(len(split), recipe.batch_size))


def plain_batches(split: Split, numbers: Numbers, size: int) -> Iterator[Batch]:
    """Yields some pictures of a split, in order and preprocessed as in serving."""

    def make(step: int) -> Batch:
        chosen = numbers[step * size : (step + 1) * size]
        crops = finished(split.cut(chosen), split.preprocess)
        return Batch(torch.from_numpy(crops), torch.from_numpy(split.classes[chosen]))

    return ahead(make, -(-len(numbers) // size))
