"""Logits to the most probable classes."""

from __future__ import annotations

import pytest
import torch

from models.checkpoints.tensors import top_k


def test_the_most_probable_come_first_and_each_row_is_its_own() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 0.0, 0.0, 4.0]])
    probabilities, classes = top_k(logits, 2)
    assert classes.tolist() == [[1, 3], [0, 3]]
    expected = torch.softmax(logits, 1)
    assert probabilities.tolist() == [expected[0, [1, 3]].tolist(), expected[1, [0, 3]].tolist()]


def test_k_is_cut_to_the_number_of_classes() -> None:
    probabilities, classes = top_k(torch.zeros(1, 3), 10)
    assert probabilities.sum().item() == pytest.approx(1.0)
    assert sorted(classes[0].tolist()) == [0, 1, 2]


def test_half_precision_does_not_round_the_probabilities() -> None:
    logits = torch.tensor([[9.0, 8.0, 1.0]])
    probabilities, _ = top_k(logits.half(), 3)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, torch.softmax(logits, 1))
