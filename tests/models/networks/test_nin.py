"""Network in network: perceptrons of 1x1 layers, and averages of maps as logits."""

from __future__ import annotations

import torch
from torch import nn

from models import get_model
from tests.networks import convolutions, meta, top_shapes


def test_network_in_network_ends_in_one_map_a_class_and_no_linear_layer() -> None:
    network = meta("nin", num_classes=13)
    assert not any(isinstance(layer, nn.Linear) for layer in network.modules())
    found = top_shapes(network, 224)
    assert list(found)[-2:] == ["mlpconv4", "avgpool"]
    assert (found["mlpconv4"], found["avgpool"]) == ((13, 6, 6), (13, 1, 1))
    # Each convolution carries a perceptron of two 1x1 layers (section 3.1).
    assert [c.kernel_size[0] for c in convolutions(network)] == [11, 1, 1, 5, 1, 1, 3, 1, 1, 3, 1, 1]


def test_pools_round_up_as_in_caffe() -> None:
    found = top_shapes(meta("nin"), 224)
    assert [found[name][1:] for name in ("mlpconv1", "pool1", "pool2", "pool3")] == [
        (54, 54), (27, 27), (13, 13), (6, 6),
    ]  # fmt: skip


def test_the_logits_of_network_in_network_are_the_averages_of_its_maps() -> None:
    network = get_model("nin", num_classes=5)
    maps: list[torch.Tensor] = []
    network.get_submodule("mlpconv4").register_forward_hook(lambda _l, _i, output: maps.append(output))
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, 224, 224))
    assert logits.std() > 0
    torch.testing.assert_close(logits, maps[0].mean((2, 3)))
