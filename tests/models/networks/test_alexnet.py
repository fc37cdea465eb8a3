"""AlexNet of 2012 and the one tower of 2014, against their papers."""

from __future__ import annotations

import pytest
from torch import nn

from models import get_model
from models.networks.layers import LRN_PAPER, LocalResponseNorm
from tests.networks import convolutions, meta, top_shapes


def test_alexnet_has_the_papers_constants_towers_and_sizes() -> None:
    network = meta("alexnet")
    layers = dict(network.named_modules())
    assert [n for n, layer in layers.items() if isinstance(layer, nn.Conv2d) and layer.groups == 2] == [
        "conv2",
        "conv4",
        "conv5",
    ]
    assert layers["norm1"].constants == layers["norm2"].constants == LRN_PAPER
    assert (LRN_PAPER.alpha / LRN_PAPER.size, LRN_PAPER.k) == pytest.approx((1e-4, 2.0))
    assert (LRN_PAPER.size, LRN_PAPER.beta) == (5, 0.75)
    assert layers["conv1"].weight.numel() == 34_848
    found = top_shapes(network, 227)
    sides = {name: found[name][1:] for name in ("conv1", "pool1", "pool2", "pool5")}
    assert sides == {"conv1": (55, 55), "pool1": (27, 27), "pool2": (13, 13), "pool5": (6, 6)}


def test_caffenet_pools_before_it_normalises() -> None:
    for pool_first, first, second in ((False, 55, 27), (True, 27, 13)):
        found = top_shapes(meta("alexnet", pool_first=pool_first), 227)
        assert (found["norm1"], found["norm2"]) == ((96, first, first), (256, second, second))


def test_one_weird_trick_has_one_tower_and_no_normalisation() -> None:
    network = meta("alexnet_owt")
    assert [(c.out_channels, c.groups) for c in convolutions(network)] == [
        (64, 1),
        (192, 1),
        (384, 1),
        (256, 1),
        (256, 1),
    ]
    assert not any(isinstance(layer, LocalResponseNorm) for layer in network.modules())


@pytest.mark.parametrize(
    ("name", "ones"), [("alexnet", {"conv2", "conv4", "conv5", "fc6", "fc7"}), ("alexnet_owt", set())]
)
def test_biases_of_the_papers_layers_start_at_one(name: str, ones: set[str]) -> None:
    """Section 5: the second, fourth and fifth convolution and the hidden fully connected layers, for the ReLUs' sake;
    the others at zero. torchvision's one tower has no such rule."""
    network = get_model(name, num_classes=2)
    layers = {path: layer for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    for path, layer in layers.items():
        assert layer.bias is not None
        assert set(layer.bias.tolist()) == ({1.0} if path in ones else {0.0}), path
    assert ones <= layers.keys()
