"""How often a network is right while it is trained; ``models/evaluation/`` measures."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from models.data.sources import evenly
from models.evaluation.answers import answered, joined, probabilities
from models.evaluation.measures import top1, top5
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
    answers = joined(
        [
            answered(probabilities(network, crops.to(device), split.preprocess), classes.numpy())
            for crops, classes in plain_batches(split, evenly(len(split), most), _BATCH)
        ]
    )
    return Accuracy(top1(answers).accuracy, top5(answers).accuracy)
