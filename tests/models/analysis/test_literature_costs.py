"""What the literature says of costs: small kernels, fully connected layers, memory, factorised convolutions."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

from models import get_model
from models.analysis.costs import Analysis, analyse
from models.networks.variants import VARIANTS

GIB, MIB = 2**30, 2**20


def analysed(name: str) -> Analysis:
    with torch.device("meta"):
        return analyse(get_model(name), VARIANTS[name].input_shape)


def of_modules(*modules: nn.Module, channels: int, side: int) -> Analysis:
    return analyse(nn.Sequential(*modules), (channels, side, side))


@pytest.mark.parametrize(("layers", "size"), [(2, 5), (3, 7), (4, 9)])
def test_stacked_3x3_convolutions_see_as_far_as_a_larger_one_with_fewer_weights(layers: int, size: int) -> None:
    """Section 2.3: three layers have 27 C^2 weights, one 7x7 has 49 C^2, "81 % more"."""
    channels = 64
    with torch.device("meta"):
        stack = of_modules(
            *(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(layers)),
            channels=channels,
            side=56,
        )
        one = of_modules(nn.Conv2d(channels, channels, size, padding=size // 2, bias=False), channels=channels, side=56)
    assert stack.layers[-1].receptive_field == one.layers[-1].receptive_field == (size, size)
    assert (stack.params, one.params) == (9 * layers * channels**2, size**2 * channels**2)
    assert stack.params < one.params
    assert stack.multiply_adds < one.multiply_adds
    if layers == 3:
        assert round(100 * (one.params / stack.params - 1)) == 81


def test_vgg16_needs_586_mib_a_picture() -> None:
    """527.8 MiB of parameters and 58.1 MiB of activations: the well-known 600 MB."""
    analysis = analysed("vgg16")
    parameters, activations = 4 * analysis.params / MIB, 4 * analysis.activations / MIB
    assert (round(parameters, 1), round(activations, 1), round(parameters + activations, 1)) == (527.8, 58.1, 585.9)
    assert analysis.costs.bytes() / 1e6 == pytest.approx(614.4, abs=0.05)


def test_a_3_gib_card_trains_vgg16_on_twelve_pictures_and_not_on_two() -> None:
    """Lecture notes say about two: that takes the whole 600 MB twice a picture, for values and gradients. But the
    parameters, their gradients and their momentum are there once whatever the batch (1.55 GiB), and only activations
    and their gradients grow (116 MiB a picture)."""
    analysis = analysed("vgg16")
    costs = analysis.costs
    assert 3 * GIB // (2 * costs.bytes()) == 2
    assert costs.largest_batch(3 * GIB, purpose="training") == 12
    fixed = costs.bytes(0, purpose="training")
    assert fixed / GIB == pytest.approx(1.55, abs=0.005)
    assert (costs.bytes(1, purpose="training") - fixed) / MIB == pytest.approx(116.3, abs=0.05)


#: Network -> share of its parameters in fully connected layers, of those in the two of 4096 units alone, and of its
#: multiply-adds in convolutions, in percent.
SHARES = {
    "alexnet": (96.2, 89.5, 91.9),
    "alexnet_owt": (96.0, 89.3, 91.8),
    "vgg11": (93.1, 90.0, 98.4),
    "vgg13": (92.9, 89.9, 98.9),
    "vgg16": (89.4, 86.4, 99.2),
    "vgg19": (86.1, 83.2, 99.4),
}


@pytest.mark.parametrize("name", SHARES)
def test_fully_connected_layers_hold_the_parameters_and_convolutions_do_the_work(name: str) -> None:
    analysis = analysed(name)
    linear = [layer for layer in analysis.layers if layer.kind == "linear"]
    wide = [layer for layer in linear if layer.output == (4096,)]
    convolutions = [layer for layer in analysis.layers if layer.kind == "convolution"]
    assert (len(linear), len(wide)) == (3, 2)
    shares = (
        sum(layer.params for layer in linear) / analysis.params,
        sum(layer.params for layer in wide) / analysis.params,
        sum(layer.multiply_adds for layer in convolutions) / analysis.multiply_adds,
    )
    assert tuple(round(100 * share, 1) for share in shares) == SHARES[name]


# -- AlexNet, network in network, Inception v3 ------------------------------------------------------------------------


def test_alexnets_first_convolution_has_34848_weights() -> None:
    conv1 = analysed("alexnet").layers[0]
    assert (conv1.kernel, conv1.stride, conv1.output) == ((11, 11), (4, 4), (96, 55, 55))
    assert conv1.params - 96 == 11 * 11 * 3 * 96 == 34_848


def test_global_average_pooling_has_no_parameters() -> None:
    """Lin, Chen and Yan, section 3.2: "there is no parameter to optimize in the global average pooling". It is the
    network's last layer, with one map a class before it, and no layer is fully connected."""
    analysis = analysed("nin")
    before, last = analysis.layers[-2:]
    assert (last.kind, last.output, last.params, last.multiply_adds) == ("avg pool", (1000, 1, 1), 0, 0)
    assert (before.kind, before.output) == ("convolution", (1000, 6, 6))
    assert not any(layer.kind == "linear" for layer in analysis.layers)
    # AlexNet's three fully connected layers alone have 7.7 times the parameters of the whole network.
    linear = sum(layer.params for layer in analysed("alexnet").layers if layer.kind == "linear")
    assert linear / analysis.params == pytest.approx(7.72, abs=0.005)


def test_a_7x7_as_1x7_and_7x1_sees_as_far_for_two_sevenths_of_the_weights() -> None:
    """Szegedy et al. 2015, section 3.2, with the n = 7 of figure 6."""
    channels = 192
    with torch.device("meta"):
        factorised = of_modules(
            nn.Conv2d(channels, channels, (1, 7), padding=(0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), padding=(3, 0), bias=False),
            channels=channels,
            side=17,
        )
        whole = of_modules(nn.Conv2d(channels, channels, 7, padding=3, bias=False), channels=channels, side=17)
    assert [layer.receptive_field for layer in factorised.layers] == [(1, 7), (7, 7)]
    assert whole.layers[-1].receptive_field == (7, 7)
    assert 7 * factorised.params == 2 * whole.params
    assert 7 * factorised.multiply_adds == 2 * whole.multiply_adds
    assert factorised.layers[-1].output == whole.layers[-1].output


def test_inception_v3_is_factorised_so() -> None:
    """Each 1x7 of its 17x17 modules stands beside a 7x1, and by pairs they have 2/7 of a 7x7's weights."""
    layers = [layer for layer in analysed("inception_v3").layers if layer.kernel in ((1, 7), (7, 1))]
    assert [layer.kernel for layer in layers].count((1, 7)) == [layer.kernel for layer in layers].count((7, 1)) == 13
    for layer in layers:
        assert prod(layer.kernel) * 7 == 49
        assert layer.output[1:] == (17, 17)
