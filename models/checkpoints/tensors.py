"""What surrounds a network, in torch: 8-bit crops -> its input; its logits -> the k most probable classes."""

from __future__ import annotations

import torch

from models.images.preprocess import Preprocess


def normalised(crops: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 (N, H, W, C) -> the network's input, float (N, C, H, W); in memory the channels stay last."""
    shape = (1, preprocess.channels, 1, 1)
    mean = torch.tensor(preprocess.mean, device=crops.device).expand(shape[1]).reshape(shape)
    std = torch.tensor(preprocess.std, device=crops.device).expand(shape[1]).reshape(shape)
    x = crops.permute(0, 3, 1, 2)
    x = x.flip(1) if preprocess.colour == "bgr" else x
    return (x * preprocess.scale - mean) / std


def top_k(logits: torch.Tensor, k: int, whole: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, classes) logits -> probabilities (N, k) and class numbers (N, k), most probable first.

    k is cut to the number of classes. Softmax runs in float32, regardless of the type of the logits.

    Args:
        whole: float32 (N, classes), is filled with the probabilities of all classes in the order of their numbers.
    """
    probabilities = torch.softmax(logits.float(), dim=1, out=whole)
    values, indices = probabilities.topk(min(k, logits.shape[1]), dim=1)
    return values, indices
