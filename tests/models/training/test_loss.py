"""The loss, compared with cross-entropy written out."""

from __future__ import annotations

import pytest
import torch

from models.training.loss import classification_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
CLASSES = torch.tensor([0, 1])


def cross_entropy(logits: torch.Tensor, smoothing: float = 0.0) -> float:
    """The mean over pictures of -sum(q * log p): q is 1 - smoothing for the class, and smoothing spread over all."""
    log_p = (logits.exp() / logits.exp().sum(1, keepdim=True)).log()
    q = torch.full_like(logits, smoothing / 3)
    q[torch.arange(2), CLASSES] += 1 - smoothing
    return float(-(q * log_p).sum(1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_network_without_heads_has_mean_cross_entropy(smoothing: float) -> None:
    found = classification_loss(LOGITS, CLASSES, label_smoothing=smoothing)
    assert found.item() == pytest.approx(cross_entropy(LOGITS, smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_auxiliary_head_adds_three_tenths_of_its_own(smoothing: float) -> None:
    first, second = LOGITS.flip(1), LOGITS * 2
    found = classification_loss((LOGITS, first, second), CLASSES, label_smoothing=smoothing)
    main, *heads = (cross_entropy(each, smoothing) for each in (LOGITS, first, second))
    assert found.item() == pytest.approx(main + 0.3 * sum(heads))
