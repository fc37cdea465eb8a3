"""The accuracy of a network in training, counted as ``models/evaluation/`` does."""

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
    """Percent of the pictures whose class is the first answer, and of those whose class is among the first five."""

    top1: float
    top5: float


@torch.inference_mode()
def measure(network: nn.Module, split: Split, device: torch.device, most: int | None = None) -> Accuracy:
    """Measures accuracy on the pictures of a split, preprocessed as in serving. Leaves the network in eval mode.

    Args:
        network: on ``device``; its answers are computed in float32.
        split: the pictures.
        device: where crops are sent.
        most: how many pictures are used at most, evenly spaced over the split.
    """
    network.eval()
    answers = joined(
        [
            answered(probabilities(network, crops.to(device), split.preprocess), classes.numpy())
            for crops, classes in plain_batches(split, evenly(len(split), most), _BATCH)
        ]
    )
    return Accuracy(top1(answers).accuracy, top5(answers).accuracy)
