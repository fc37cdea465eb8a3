"""From a variant to its network."""

from __future__ import annotations

import pytest
import torch

from models import get_model
from models.networks.alexnet import AlexNet
from models.networks.googlenet import GoogLeNet
from models.networks.layers import LRN_CAFFE, LRNConstants
from tests.networks import PARAMETERS, PARAMETERS_WITH_HEADS, meta


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
        # Nothing differs in AlexNet's graph, so that asking for it is no error.
        assert isinstance(get_model("alexnet", as_graph=True), AlexNet)
