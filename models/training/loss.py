"""The loss of a network with auxiliary heads."""

from __future__ import annotations

import torch
from torch.nn import functional as F

#: Szegedy et al. 2014, section 5: "the losses of the auxiliary classifiers were weighted by 0.3".
AUXILIARY_WEIGHT = 0.3


def classification_loss(
    outputs: torch.Tensor | tuple[torch.Tensor, ...], classes: torch.Tensor, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy of the logits plus 0.3 times that of each auxiliary head.

    Args:
        outputs: a network's output in training mode: logits (N, classes), or a tuple of them and each head's logits.
        classes: class numbers, int64 (N,).
        label_smoothing: the share of each label that is spread over all classes, as in Szegedy et al. 2015, section 7.
    """
    main, *heads = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = F.cross_entropy(main, classes, label_smoothing=label_smoothing)
    for head in heads:
        loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(head, classes, label_smoothing=label_smoothing)
    return loss
