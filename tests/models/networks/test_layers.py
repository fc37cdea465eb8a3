"""Layers and initialisations that several networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.networks.layers import (
    LRN_CAFFE,
    LRN_PAPER,
    ConvBNReLU,
    ConvReLU,
    LocalResponseNorm,
    LRNConstants,
    init_gaussian,
    init_kaiming,
    init_xavier,
)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9),
    alpha=st.floats(1e-5, 2.0),
    beta=st.floats(0.25, 1.5),
    k=st.floats(0.5, 3.0),
    channels=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_local_response_normalisation_is_torchs(
    size: int, alpha: float, beta: float, k: float, channels: int, seed: int
) -> None:
    x = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(seed)) * 10
    ours = LocalResponseNorm(LRNConstants(size, alpha, beta, k))(x)
    torch.testing.assert_close(ours, nn.LocalResponseNorm(size, alpha, beta, k)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_normalisation_in_half_precision_survives_activations_of_thousands(dtype: torch.dtype) -> None:
    """Their squares overflow float16."""
    x = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0)) * 2000
    found = LocalResponseNorm(LRN_CAFFE)(x.to(dtype))
    assert found.dtype == dtype
    expected = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(x.to(dtype).float())
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)
    assert found.abs().max() > 1


def test_the_constants_are_krizhevskys_and_caffes() -> None:
    """torch divides alpha by the size; the paper (section 3.3) does not: k = 2, n = 5, alpha = 1e-4, beta = 0.75."""
    assert LRNConstants(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0) == LRN_PAPER
    assert LRNConstants(size=5, alpha=1e-4, beta=0.75, k=1.0) == LRN_CAFFE


def test_a_convolution_has_biases_unless_batch_norm_follows_it() -> None:
    assert [type(layer) for layer in ConvReLU(3, 8, kernel_size=3)] == [nn.Conv2d, nn.ReLU]
    assert ConvReLU(3, 8, kernel_size=3).conv.bias is not None
    normed = ConvBNReLU(3, 8, kernel_size=3)
    assert [type(layer) for layer in normed] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert normed.conv.bias is None
    # TensorFlow's, with which torchvision's weights were trained.
    assert normed.bn.eps == 1e-3
    assert ConvBNReLU(3, 8, kernel_size=3, eps=1e-5).bn.eps == 1e-5


@pytest.fixture
def small() -> Iterator[nn.Sequential]:
    """A convolution with unequal fans and a linear layer, all of whose parameters are one."""
    network = nn.Sequential(nn.Conv2d(16, 64, 3), nn.Flatten(), nn.Linear(200, 100))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield network


def check_gaussian(weight: torch.Tensor, std: float) -> None:
    """Checks the mean of zero, the deviation, and tails that a uniform distribution does not have."""
    assert weight.mean().item() == pytest.approx(0, abs=0.05 * std)
    assert weight.std().item() == pytest.approx(std, rel=0.04)
    assert weight.abs().max() > 3 * std


def biases(network: nn.Module) -> set[float]:
    return {
        value
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
        for value in layer.bias.tolist()
    }


@pytest.mark.parametrize("std", [0.01, 0.1])
def test_gaussian_weights(small: nn.Sequential, std: float) -> None:
    init_gaussian(small, std)
    for layer in (small[0], small[2]):
        check_gaussian(layer.weight, std)
    assert biases(small) == {0.0}


def test_hes_weights_keep_the_variance_of_the_gradient_and_linear_layers_are_gaussian(small: nn.Sequential) -> None:
    """He et al. 2015, equation 14: 2 / (kernel^2 * output channels), not input channels."""
    init_kaiming(small)
    check_gaussian(small[0].weight, (2 / (9 * 64)) ** 0.5)
    check_gaussian(small[2].weight, 0.01)
    assert biases(small) == {0.0}


def test_glorots_weights_are_uniform(small: nn.Sequential) -> None:
    """Glorot and Bengio 2010, equation 16: within sqrt(6 / (inputs + outputs))."""
    init_xavier(small)
    for layer, fans in ((small[0], 9 * (16 + 64)), (small[2], 200 + 100)):
        bound = (6 / fans) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert biases(small) == {0.0}


@pytest.mark.parametrize("init", [init_gaussian, init_kaiming])
def test_nothing_is_drawn_on_the_meta_device(
    init: Callable[[nn.Module], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing there takes torch seconds."""
    for name in ("normal_", "kaiming_normal_"):
        monkeypatch.setattr(nn.init, name, lambda *_arguments, **_options: pytest.fail("drawn"))
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5))
    init(network)
