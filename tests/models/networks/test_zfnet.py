"""ZFNet against figure 3 of its paper, and the zoo's wider one against its graph."""

from __future__ import annotations

import pytest
from torch import nn

from tests.networks import convolutions, meta, top_shapes


@pytest.mark.parametrize(("name", "sides"), [("zfnet", [110, 55, 26, 13, 6]), ("zfnet512", [109, 54, 25, 12, 6])])
def test_zfnet_has_the_sizes_of_figure_three_and_of_the_zoos_graph(name: str, sides: list[int]) -> None:
    network = meta(name)
    found = top_shapes(network, 224)
    assert [found[layer][-1] for layer in ("conv1", "pool1", "conv2", "pool2", "pool5")] == sides
    assert {found[layer][-1] for layer in ("conv3", "conv4", "conv5")} == {sides[3]}
    assert [(c.kernel_size, c.stride, c.groups) for c in convolutions(network)[:2]] == [
        ((7, 7), (2, 2), 1),
        ((5, 5), (2, 2), 1),
    ]
    # The figure pools before it normalises, the zoo's graph after.
    assert found["norm1"][-1] == (sides[1] if name == "zfnet" else sides[0])
    assert found["norm2"][-1] == (sides[3] if name == "zfnet" else sides[2])


@pytest.mark.parametrize(
    ("name", "widths"),
    [("zfnet", [96, 256, 384, 384, 256, 4096, 4096, 1000]), ("zfnet512", [96, 256, 512, 512, 512, 4096, 1024, 1000])],
)
def test_zfnet512_is_wider_from_the_third_convolution_on(name: str, widths: list[int]) -> None:
    weights = [layer.weight for layer in meta(name).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [weight.shape[0] for weight in weights] == widths
