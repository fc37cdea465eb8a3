"""Logits -> the k most probable classes."""

from __future__ import annotations

import torch


def top_k(logits: torch.Tensor, k: int, whole: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, classes) logits -> probabilities (N, k) and class numbers (N, k), most probable first.

    k is cut to the number of classes. Softmax runs in float32 whatever the logits are.

    Args:
        whole: float32 (N, classes), for the probabilities of all classes in the order of their numbers.
    """
    probabilities = torch.softmax(logits.float(), dim=1, out=whole)
    values, indices = probabilities.topk(min(k, logits.shape[1]), dim=1)
    return values, indices
