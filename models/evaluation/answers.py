"""Crops -> probabilities -> answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.checkpoints.tensors import normalised
from models.data.arrays import Numbers
from models.images.preprocess import Preprocess


class Answers(NamedTuple):
    """A network's answers for N pictures; every array is (N,)."""

    classes: Numbers
    """The right classes."""
    first: Numbers
    """The most probable classes."""
    confidence: npt.NDArray[np.float32]
    """The probabilities of ``first``."""
    among_five: npt.NDArray[np.bool_]
    """Whether the right class is among the five most probable."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the first answer is the right class."""
        right: npt.NDArray[np.bool_] = self.first == self.classes
        return right


def probabilities(network: nn.Module, crops: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Crops, uint8 (N, side, side, channels) as of ``preprocess.crop`` -> probabilities, float32 (N, classes)."""
    return torch.softmax(network(normalised(crops, preprocess)).float(), 1)


def answered(found: torch.Tensor, classes: Numbers) -> Answers:
    """Probabilities (N, number of classes) and the right classes (N,) -> answers."""
    values, indices = (tensor.cpu().numpy() for tensor in found.topk(min(5, found.shape[1]), 1))
    return Answers(classes, indices[:, 0], values[:, 0], (indices == classes[:, None]).any(1))


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers of several batches as one."""
    return Answers(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
