"""What the papers say of each network, layer by layer. LeNet-5 and GoogLeNet have more in files of their own."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

from models import get_model
from models.analysis.costs import analyse
from models.networks.layers import LRN_PAPER, LocalResponseNorm
from models.networks.variants import VARIANTS


def meta(name: str, **arguments: object) -> nn.Module:
    """A network without memory or arithmetic, for questions of shape."""
    with torch.device("meta"):
        return get_model(name, **arguments)  # type: ignore[arg-type]


def top_shapes(network: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """The output of every layer at the top, in the order of running, for one picture."""
    found: dict[str, tuple[int, ...]] = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda _l, _i, output, name=name: found.update({name: tuple(output.shape[1:])}))
    network(torch.empty(1, 3, side, side, device="meta"))
    return found


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def test_lenet5_has_the_papers_connections() -> None:
    """Section II-B counts a unit's bias as a connection."""
    layers = {layer.name: layer for layer in analyse(meta("lenet5"), (1, 32, 32)).layers}
    assert {name: layers[name].multiply_adds + prod(layers[name].output) for name in ("c1", "c3", "c5", "f6")} == {
        "c1": 122_304,
        "c3": 151_600,
        "c5": 48_120,
        "f6": 10_164,
    }
    # The biases are no multiplications; S2 and S4 multiply once an output, and the linear output is not the paper's.
    biases, subsampling, output = 4704 + 1600 + 120 + 84, 1176 + 400, 840
    connections = 122_304 + 151_600 + 48_120 + 10_164
    assert VARIANTS["lenet5"].multiply_adds == connections - biases + subsampling + output


@pytest.mark.parametrize(
    ("name", "depth"),
    {
        "lenet5": 7,
        "alexnet": 8,
        "zfnet": 8,
        "zfnet512": 8,
        "nin": 12,
        "alexnet_owt": 8,
        "vgg11": 11,
        "vgg11_lrn": 11,
        "vgg13": 13,
        "vgg16_c": 16,
        "vgg16": 16,
        "vgg19": 19,
        "googlenet": 22,
        "googlenet_bn": 22,
    }.items(),
)
def test_a_network_is_as_deep_as_its_paper_says(name: str, depth: int) -> None:
    assert analyse(meta(name), VARIANTS[name].input_shape).depth == depth


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
    for pool_first, side in ((False, 55), (True, 27)):
        assert top_shapes(meta("alexnet", pool_first=pool_first), 227)["norm1"] == (96, side, side)


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


def test_network_in_network_ends_in_one_map_a_class_and_no_linear_layer() -> None:
    network = meta("nin", num_classes=13)
    assert not any(isinstance(layer, nn.Linear) for layer in network.modules())
    found = top_shapes(network, 224)
    assert list(found)[-2:] == ["mlpconv4", "avgpool"]
    assert (found["mlpconv4"], found["avgpool"]) == ((13, 6, 6), (13, 1, 1))
    # Each convolution carries a perceptron of two 1x1 layers (section 3.1).
    assert [c.kernel_size[0] for c in convolutions(network)] == [11, 1, 1, 5, 1, 1, 3, 1, 1, 3, 1, 1]


def test_the_logits_of_network_in_network_are_the_averages_of_its_maps() -> None:
    network = get_model("nin", num_classes=5)
    maps: list[torch.Tensor] = []
    network.get_submodule("mlpconv4").register_forward_hook(lambda _l, _i, output: maps.append(output))
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, 224, 224))
    assert logits.std() > 0
    torch.testing.assert_close(logits, maps[0].mean((2, 3)))


#: Table 1 of VGG's paper, as kernel x maps.
STAGES_C = [
    *("3x64", "3x64", "3x128", "3x128", "3x256", "3x256", "1x256"),
    *("3x512", "3x512", "1x512", "3x512", "3x512", "1x512"),
]


def test_vgg_c_is_vgg_d_with_three_1x1_convolutions() -> None:
    c, d = ([f"{k.kernel_size[0]}x{k.out_channels}" for k in convolutions(meta(name))] for name in ("vgg_c", "vgg_d"))
    assert c == STAGES_C
    assert sum(kernel.startswith("1x") for kernel in c) == 3
    assert d == [kernel.replace("1x", "3x", 1) if kernel.startswith("1x") else kernel for kernel in STAGES_C]
    # 1x1 layers pad nothing, or the maps would grow.
    pools = [layer for layer in analyse(meta("vgg16_c"), (3, 224, 224)).layers if layer.kind == "max pool"]
    assert [pool.output[1] for pool in pools] == [112, 56, 28, 14, 7]


def test_only_vgg_a_lrn_normalises_once_after_its_first_convolution_as_alexnet_does() -> None:
    with_lrn = list(meta("vgg11_lrn").get_submodule("features").children())
    without = list(meta("vgg11").get_submodule("features").children())
    norms = [layer for layer in with_lrn if isinstance(layer, LocalResponseNorm)]
    assert [norm.constants for norm in norms] == [LRN_PAPER]
    assert [type(layer) for layer in with_lrn[:4]] == [nn.Conv2d, nn.ReLU, LocalResponseNorm, nn.MaxPool2d]
    with_lrn.remove(norms[0])
    assert [repr(layer) for layer in with_lrn] == [repr(layer) for layer in without]
    for name in ("vgg13", "vgg16_c", "vgg16", "vgg19"):
        assert not any(isinstance(layer, LocalResponseNorm) for layer in meta(name).modules())


def test_googlenet_bn_has_3x3_where_the_paper_has_5x5() -> None:
    """A mistake that torchvision's weights bind us to; ``googlenet`` is the paper's."""
    kernels = {
        name: {tuple(c.kernel_size) for c in convolutions(meta(name))[1:]} for name in ("googlenet", "googlenet_bn")
    }
    assert kernels == {"googlenet": {(1, 1), (3, 3), (5, 5)}, "googlenet_bn": {(1, 1), (3, 3)}}


def test_inception_v2_has_the_sizes_of_figure_five_and_no_5x5() -> None:
    network = meta("inception_v2")
    found = {name: shape[:2] for name, shape in top_shapes(network, 224).items()}
    assert found == {
        "conv1": (64, 112),
        "pool1": (64, 56),
        "conv2_reduce": (64, 56),
        "conv2": (192, 56),
        "pool2": (192, 28),
        "inception3a": (256, 28),
        "inception3b": (320, 28),
        "inception3c": (576, 14),
        **{f"inception4{module}": (576, 14) for module in "abcd"},
        "inception4e": (1024, 7),
        "inception5a": (1024, 7),
        "inception5b": (1024, 7),
        "avgpool": (1024, 1),
        "fc": (1000,),
    }
    assert {tuple(c.kernel_size) for c in convolutions(network)[1:]} == {(1, 1), (3, 3)}
    # A bias before batch norm would have no effect (section 3.2).
    assert all(c.bias is None for c in convolutions(network))


def test_inception_v3_has_the_sizes_of_table_one_with_torchvisions_stem() -> None:
    found = top_shapes(meta("inception_v3"), 299)
    sides = [shape[-1] for name, shape in found.items() if name not in ("avgpool", "dropout", "fc")]
    assert sides == [149, 147, 147, 73, 73, 71, 35, *[35] * 3, *[17] * 5, *[8] * 3]
    assert list(dict.fromkeys(sides)) == [149, 147, 73, 71, 35, 17, 8]
    channels = {name: shape[0] for name, shape in found.items() if name.startswith("Mixed")}
    assert list(channels.values()) == [256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048]


def test_inception_v3_factorises_its_kernels() -> None:
    """1x7 and 7x1 on 17x17 (figure 6), 1x3 and 3x1 side by side on 8x8 (figure 7)."""
    layers = analyse(meta("inception_v3"), (3, 299, 299)).layers
    kernels = {
        side: {layer.kernel for layer in layers if layer.kind == "convolution" and layer.output[1:] == (side, side)}
        for side in (35, 17, 8)
    }
    assert {(1, 7), (7, 1)} <= kernels[17]
    assert {(1, 3), (3, 1)} <= kernels[8]
    assert not any((7, 7) in found for found in kernels.values())
