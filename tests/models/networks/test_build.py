"""A variant -> its network."""

from __future__ import annotations

import pytest
import torch

from models import get_model
from models.networks.alexnet import AlexNet
from models.networks.build import build
from models.networks.googlenet import GoogLeNet
from models.networks.layers import LRN_CAFFE, LRNConstants
from models.networks.variants import find_variant
from tests.networks import PARAMETERS, PARAMETERS_WITH_HEADS, convolutions, meta


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name not in PARAMETERS_WITH_HEADS])
def test_heads_that_a_network_does_not_have_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} has no auxiliary heads$"):
        meta(name, aux_heads=True)


def test_without_weights_each_build_is_random_and_evaluates() -> None:
    first, second = get_model("lenet5"), get_model("lenet5")
    assert not first.training
    assert not torch.equal(first.get_parameter("c1.weight"), second.get_parameter("c1.weight"))


def test_arguments_reach_the_network() -> None:
    constants = {"size": 3, "alpha": 0.5, "beta": 0.25, "k": 4.0}
    with torch.device("meta"):
        network = get_model("alexnet", lrn=constants, pool_first=True)
        assert isinstance(network, AlexNet)
        assert network.norm1.constants == LRNConstants(**constants)  # type: ignore[arg-type]
        assert network.pool_first
        graph = get_model("googlenet", as_graph=True, aux_heads=True)
        assert isinstance(graph, GoogLeNet)
        assert not graph.pool1.ceil_mode
        assert graph.norm1.constants == LRN_CAFFE
        assert graph.aux2 is not None
        # The layers of AlexNet's graph are the same.
        assert isinstance(get_model("alexnet", as_graph=True), AlexNet)


@pytest.mark.parametrize("name", ["vgg16", "inception_v3", "lenet5"])
def test_the_zoos_geometry_may_be_asked_for_where_it_is_the_same(name: str) -> None:
    assert repr(meta(name, as_graph=True)) == repr(meta(name))


def test_the_row_decides_what_the_caller_does_not() -> None:
    vgg16 = find_variant("vgg16")
    with torch.device("meta"):
        network = build(vgg16, num_classes=7)
        with_heads = build(find_variant("googlenet"), num_classes=7, aux_heads=True)
    assert [layer.out_channels for layer in convolutions(network)][:3] == [64, 64, 128]
    assert len(convolutions(network)) == 13
    assert network.get_submodule("classifier.6").out_features == 7
    assert not network.training
    assert with_heads.get_submodule("aux1.fc2").out_features == 7
    assert not with_heads.training


def test_an_argument_that_the_network_does_not_take_is_an_error() -> None:
    with pytest.raises(TypeError, match="pool_first"):
        meta("vgg16", pool_first=True)


def test_the_callers_arguments_override_the_rows() -> None:
    """vgg16's row says column D, of thirteen convolutions; column A has eight."""
    assert len(convolutions(meta("vgg16", configuration="A"))) == 8
