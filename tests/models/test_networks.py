"""The networks against their papers: counts, shapes, and what the text says of each layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import UnknownModelError, get_model, list_models
from models.analysis import activation_elements, parameter_count
from models.layers import LRN_PAPER, LocalResponseNorm, LRNConstants
from models.variants import VARIANTS, Variant, find_variant

PARAMETERS = {"lenet5": 60_850, "alexnet": 60_965_224, "vgg16": 138_357_544, "googlenet": 6_998_552}


def meta(name: str, **arguments: object) -> nn.Module:
    """A network without memory or arithmetic, for questions of shape."""
    with torch.device("meta"):
        return get_model(name, **arguments)  # type: ignore[arg-type]


@contextmanager
def shapes(network: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """Collects the output shape of every named layer while a picture runs through."""
    found: dict[str, tuple[int, ...]] = {}

    def hook(name: str, layer: nn.Module) -> None:
        layer.register_forward_hook(lambda _layer, _inputs, output: found.update({name: tuple(output.shape)}))

    for name, layer in network.named_modules():
        if name:
            hook(name, layer)
    yield found


def variants() -> list[Variant]:
    return list(VARIANTS.values())


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_the_table_tells_what_the_network_has(variant: Variant) -> None:
    network = meta(variant.name)
    assert parameter_count(network) == variant.params == PARAMETERS[variant.name]
    assert activation_elements(network, variant.input_shape) == variant.activations
    assert dict(network.named_modules())[variant.last_layer].out_features in (10, 1000)


def test_the_table_holds_every_network_oldest_first() -> None:
    assert list_models() == list(PARAMETERS)
    assert [variant.year for variant in variants()] == sorted(variant.year for variant in variants())


def test_auxiliary_heads_have_the_papers_size() -> None:
    assert parameter_count(meta("googlenet", aux_heads=True)) == 13_378_280


def test_vgg16_needs_the_600_megabytes_a_picture_that_it_is_known_for() -> None:
    assert VARIANTS["vgg16"].analytic_bytes / 2**20 == pytest.approx(585.9, abs=0.05)
    assert VARIANTS["vgg16"].analytic_bytes / 10**6 == pytest.approx(614.4, abs=0.05)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = get_model("lenet5").train()
    picture = torch.rand(1, 1, 32, 32)
    before = network(picture)
    # By hand: input, C1, S2, C3, S4, C5, F6, output.
    assert activation_elements(network, (1, 32, 32)) == 1024 + 4704 + 1176 + 1600 + 400 + 120 + 84 + 10
    assert network.training
    assert torch.equal(network(picture), before)


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_any_batch_size_gives_a_row_of_logits_a_picture(variant: Variant, batch: int) -> None:
    network = meta(variant.name, num_classes=13)
    assert not network.training
    assert network(torch.empty(batch, *variant.input_shape, device="meta")).shape == (batch, 13)


def test_a_picture_gets_the_same_logits_alone_and_in_a_batch() -> None:
    network, pictures = get_model("lenet5").double(), torch.rand(7, 1, 32, 32, dtype=torch.float64)
    whole = network(pictures)
    for i in range(7):
        torch.testing.assert_close(network(pictures[i : i + 1])[0], whole[i], rtol=1e-9, atol=1e-15)
    assert not torch.allclose(whole[0], whole[1], rtol=1e-3, atol=0)


def test_aliases_name_the_same_rows() -> None:
    for alias, name in {
        "vgg": "vgg16",
        "vgg_d": "vgg16",
        "inception_v1": "googlenet",
        "alexnet_2012": "alexnet",
        "lenet5": "lenet5",
    }.items():
        assert find_variant(alias).name == name


@pytest.mark.parametrize("name", ["resnet50", "VGG16", "", "vgg16@imagenet1k"])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        get_model(name)
    assert {*list_models(), "vgg", "inception_v1"} <= set(caught.value.known)
    for known in caught.value.known:
        assert known in str(caught.value)


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
    assert layers["conv1"].weight.numel() == 34_848
    with shapes(network) as found:
        network(torch.empty(1, 3, 227, 227, device="meta"))
    sides = {name: found[name][2:] for name in ("conv1", "pool1", "pool2", "pool5")}
    assert sides == {"conv1": (55, 55), "pool1": (27, 27), "pool2": (13, 13), "pool5": (6, 6)}


def test_caffenet_pools_before_it_normalises() -> None:
    for pool_first, side in ((False, 55), (True, 27)):
        network = meta("alexnet", pool_first=pool_first)
        with shapes(network) as found:
            network(torch.empty(1, 3, 227, 227, device="meta"))
        assert found["norm1"] == (1, 96, side, side)


def test_vgg16_has_torchvisions_names_and_shapes() -> None:
    """So that its public weights load as they are."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        theirs = {name: tensor.shape for name, tensor in vgg16().state_dict().items()}
    assert {name: tensor.shape for name, tensor in meta("vgg16").state_dict().items()} == theirs
