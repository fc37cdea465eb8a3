"""The table of variants against papers and torch, and names that are misspelt."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import get_model, list_models
from models.analysis.costs import analyse, parameter_count
from models.networks.lenet import Subsampling, TableConv2d
from models.networks.variants import VARIANTS, UnknownModelError, Variant, find_variant
from tests.networks import ALIASES, PARAMETERS, meta, variants


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("googlnet", "googlenet"),
        ("GoogLeNet", "googlenet"),
        ("googlnet@cifar10", "googlenet"),
        ("alexnt", "alexnet"),
        ("VGG-16", "vgg16"),
        ("inceptionv3", "inception_v3"),
        ("lenet-5", "lenet5"),
        ("bn-inception", "bn_inception"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=rf"unknown model '{name}' \(did you mean {meant}\?\); known: alexnet,"):
        find_variant(name)


@pytest.mark.parametrize("name", ["resnet50", "", "x", "g" * 100_000, "mobilenet", "'; drop", "\n"])
def test_a_name_unlike_all_known_ones_gets_no_suggestion(name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        find_variant(name)
    assert "did you mean" not in str(caught.value)
    assert set(VARIANTS) < set(caught.value.known)


def test_a_right_name_for_a_wrong_label_set_gets_no_suggestion() -> None:
    assert "did you mean" not in str(UnknownModelError("googlenet@mnist"))


#: Layers whose outputs analytic memory counts.
COUNTED = (
    *(nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    *(TableConv2d, Subsampling),
)


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_the_table_tells_what_the_network_has(variant: Variant) -> None:
    network = meta(variant.name)
    analysis = analyse(network, variant.input_shape)
    assert parameter_count(network) == analysis.params == variant.params == PARAMETERS[variant.name]
    assert (analysis.activations, analysis.multiply_adds) == (variant.activations, variant.multiply_adds)
    classes = 10 if variant.labels == "mnist" else 1000
    assert network.get_submodule(variant.last_layer).bias.shape == (classes,)


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_torch_counts_the_same(variant: Variant) -> None:
    """Multiply-adds by torch's own counter, and outputs by a hook on each layer."""
    network, picture = meta(variant.name), torch.empty(1, *variant.input_shape, device="meta")
    outputs: list[int] = []
    for layer in network.modules():
        if isinstance(layer, COUNTED):
            layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output.numel()))
    with FlopCounterMode(display=False) as counter:
        network(picture)
    assert picture.numel() + sum(outputs) == variant.activations
    # LeNet-5's C3 is computed dense although 60 of its 96 kernels exist; test_lenet.py checks its paper's counts.
    if variant.name != "lenet5":
        assert counter.get_total_flops() == 2 * variant.multiply_adds


def test_the_table_holds_every_network_oldest_first() -> None:
    assert list_models() == list(PARAMETERS)
    assert [variant.year for variant in variants()] == sorted(variant.year for variant in variants())


def test_aliases_name_the_same_rows() -> None:
    assert {alias: variant.name for variant in variants() for alias in variant.aliases} == ALIASES
    for alias, name in ALIASES.items():
        assert find_variant(alias) is find_variant(name) is VARIANTS[name]


@pytest.mark.parametrize("name", ["resnet50", "VGG16", "", "vgg16@imagenet1k"])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        get_model(name)
    assert {*list_models(), *ALIASES} == set(caught.value.known)
    for known in caught.value.known:
        assert known in str(caught.value)


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
