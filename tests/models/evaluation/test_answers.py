"""Probabilities become answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.evaluation.answers import answered, joined
from models.evaluation.measures import (
    Share,
    top1,
    top5,
)


def test_probabilities_become_answers() -> None:
    found = torch.tensor([[0.1, 0.6, 0.05, 0.05, 0.1, 0.07, 0.03], [0.3, 0.2, 0.15, 0.12, 0.11, 0.08, 0.04]])
    answers = answered(found, np.array([1, 6]))
    assert answers.first.tolist() == [1, 0]
    assert answers.confidence == pytest.approx([0.6, 0.3])
    assert answers.among_five.tolist() == [True, False]
    assert answers.right.tolist() == [True, False]
    both = joined([answers, answered(found, np.array([0, 4]))])
    assert (top1(both), top5(both)) == (Share(1, 4), Share(3, 4))
    assert answered(torch.eye(3), np.array([1, 1, 2])).among_five.all()
