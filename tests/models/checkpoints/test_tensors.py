"""Crops to a network's input, and logits to the most probable classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.checkpoints.tensors import normalised, top_k
from models.images.preprocess import PRESETS, Preprocess


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


def test_all_probabilities_are_written_where_the_caller_wants_them() -> None:
    logits, whole = torch.tensor([[0.0, 3.0, 1.0]]), torch.empty(1, 3)
    probabilities, classes = top_k(logits, 2, whole)
    torch.testing.assert_close(whole, torch.softmax(logits, 1))
    assert torch.equal(probabilities, whole.gather(1, classes))


def test_one_picture_is_one_row_whatever_the_others_are() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    for i in range(3):
        alone, together = top_k(logits[i : i + 1], 5), top_k(logits, 5)
        torch.testing.assert_close(alone[0][0], together[0][i])
        assert torch.equal(alone[1][0], together[1][i])


#: A colour picture of one row and two pixels.
PIXELS = torch.tensor([[[[10, 20, 30], [40, 50, 60]]]], dtype=torch.uint8)


def preprocess(**fields: object) -> Preprocess:
    return replace(PRESETS["torchvision-224"], **fields)  # type: ignore[arg-type]


def test_a_crop_is_scaled_then_centred_then_divided() -> None:
    found = normalised(PIXELS, preprocess(scale=0.1, mean=(1.0, 2.0, 3.0), std=(0.5, 2.0, 4.0)))
    assert found.shape == (1, 3, 1, 2)
    assert found.dtype == torch.float32
    expected = [[[0.0, 6.0]], [[0.0, 1.5]], [[0.0, 0.75]]]
    torch.testing.assert_close(found[0], torch.tensor(expected))


def test_bgr_reverses_the_channels_before_the_means_are_subtracted() -> None:
    found = normalised(PIXELS, preprocess(colour="bgr", scale=1.0, mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0)))
    assert found[0, :, 0, 0].tolist() == [30 - 104, 20 - 117, 10 - 123]


def test_one_mean_serves_all_channels() -> None:
    found = normalised(PIXELS, preprocess(scale=1.0, mean=(10.0,), std=(2.0,)))
    assert found[0, :, 0, 0].tolist() == [0.0, 5.0, 10.0]


def test_a_grey_crop_has_one_channel() -> None:
    found = normalised(
        torch.full((2, 4, 4, 1), 51, dtype=torch.uint8), replace(PRESETS["mnist"], mean=(0.2,), std=(1.0,))
    )
    assert found.shape == (2, 1, 4, 4)
    torch.testing.assert_close(found, torch.zeros(2, 1, 4, 4))


def test_the_input_is_channels_last_in_memory() -> None:
    found = normalised(torch.zeros(2, 4, 5, 3, dtype=torch.uint8), preprocess())
    assert found.is_contiguous(memory_format=torch.channels_last)
