"""The plain engine, against the network and the arithmetic of its preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Catalogue
from service.domain.prediction import MAX_K
from service.engines.torch_cpu import TorchCpu

UNTRAINED = Catalogue(untrained=True)


@pytest.mark.parametrize("name", ["lenet5", "googlenet"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_of_bytes_gives_the_networks_probabilities(name: str, batch_size: int) -> None:
    checkpoint = UNTRAINED.find(name)
    preprocess = checkpoint.preprocess
    shape = (batch_size, preprocess.side, preprocess.side, preprocess.channels)
    crops = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    engine = TorchCpu(checkpoint, precision="float32", threads=1)
    top = engine.run(crops, True)

    # By the book, one number after the other.
    x = crops[..., ::-1] if preprocess.colour == "bgr" else crops
    x = (x.astype(np.float64) * preprocess.scale - np.array(preprocess.mean)) / np.array(preprocess.std)
    with torch.inference_mode():
        logits = build_checkpoint(checkpoint)(torch.from_numpy(x.transpose(0, 3, 1, 2)).float())
    expected = torch.softmax(logits, 1).sort(dim=1, descending=True)
    assert top.probabilities.shape == (batch_size, MAX_K)
    np.testing.assert_allclose(top.probabilities, expected.values[:, :MAX_K].numpy(), atol=1e-5)
    assert (top.indices[:, 0] == expected.indices[:, 0].numpy()).all()
    assert top.distributions is not None
    np.testing.assert_allclose(top.distributions, torch.softmax(logits, 1).numpy(), atol=1e-5)
    assert engine.run(crops).distributions is None


def test_bytes_held_are_the_parameters() -> None:
    engine = TorchCpu(UNTRAINED.find("lenet5"), precision="float32", threads=1)
    assert engine.bytes_held == 60_850 * 4
    half = TorchCpu(UNTRAINED.find("lenet5"), precision="bfloat16", threads=1)
    assert half.bytes_held == 60_850 * 2


def test_a_forward_pass_has_the_threads_that_were_asked_for() -> None:
    """Whatever the process had before: Ray leaves one."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(3)
            TorchCpu(UNTRAINED.find("lenet5"), precision="float32", threads=threads).warm_up(1)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_bfloat16_and_float32_agree_on_a_clear_digit() -> None:
    """The trained LeNet-5: on a clear digit bfloat16 and float32 agree about the first label."""
    checkpoint = Catalogue().find("lenet5@mnist")
    crop = np.zeros((1, 32, 32, 1), np.uint8)
    crop[0, 6:26, 15:18] = 255  # a one
    for precision in ("float32", "bfloat16"):
        top = TorchCpu(checkpoint, precision=precision, threads=1).run(crop)
        assert top.indices[0, 0] == 1
        assert top.probabilities.dtype == np.float32
