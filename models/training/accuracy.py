"""How often a network is right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.export import normalised
from models.training.batches import plain_batches
from models.training.dataset import Split

_BATCH = 250


class Accuracy(NamedTuple):
    """Percent of the pictures whose class is the first answer, and among the first five."""

    top1: float
    top5: float


@torch.inference_mode()
def measure(network: nn.Module, split: Split, device: torch.device, most: int | None = None) -> Accuracy:
    """Accuracy on the pictures of a split, preprocessed as serving does; in float32, in eval mode.

    Args:
        most: no more than so many pictures, evenly over the split, which a folder orders by class.
    """
    network.eval()
    count = len(split) if most is None else min(most, len(split))
    numbers = np.linspace(0, len(split) - 1, count).astype(np.int64)
    first = five = 0
    for crops, classes in plain_batches(split, numbers, _BATCH):
        logits = network(normalised(crops.to(device), split.preprocess))
        answers = logits.topk(min(5, logits.shape[1]), 1).indices
        right = answers == classes.to(device)[:, None]
        first += int(right[:, 0].sum())
        five += int(right.any(1).sum())
    return Accuracy(100 * first / count, 100 * five / count)
