"""The graph of a network's layers, and the shapes in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import get_model
from models.networks.googlenet import HeadPool
from models.networks.layers import LRN_PAPER, LocalResponseNorm
from models.networks.lenet import C3_TABLE, ScaledTanh, Subsampling, TableConv2d
from models.networks.tracing import output_shapes, trace
from tests.networks import meta


def modules(network: nn.Module) -> list[str]:
    return [str(node.target) for node in trace(network) if node.op == "call_module"]


@pytest.mark.parametrize(
    "layer",
    [HeadPool(), LocalResponseNorm(LRN_PAPER), ScaledTanh(), Subsampling(6), TableConv2d(6, C3_TABLE, 5)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_of_this_package_is_one_node(layer: nn.Module) -> None:
    assert [node.op for node in trace(nn.Sequential(layer))] == ["placeholder", "call_module", "output"]


def test_layers_come_in_the_order_of_running() -> None:
    """C1's squashing and S2's are one module, used again and again."""
    assert modules(meta("lenet5")) == [
        *("c1", "squash", "s2", "squash", "c3", "squash", "s4", "squash", "c5", "squash", "f6", "squash", "output")
    ]


@pytest.mark.parametrize("training", [False, True])
def test_auxiliary_heads_are_there_in_training_mode(training: bool) -> None:
    network = meta("googlenet", aux_heads=True).train(training)
    assert any(name.startswith("aux1.") for name in modules(network)) == training
    assert ("aux2.fc2" in output_shapes(network, (3, 224, 224))) == training


def test_shapes_are_those_of_a_real_run_without_the_batch() -> None:
    network = get_model("lenet5")
    found: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: found.update({name: tuple(output.shape[1:])}))
    network(torch.zeros(3, 1, 32, 32))
    assert output_shapes(get_model("lenet5"), (1, 32, 32)) == found
    assert found["c3"] == (16, 10, 10)


def test_shapes_are_found_without_arithmetic_on_any_device_and_leave_no_hooks() -> None:
    network = get_model("googlenet_bn", num_classes=3).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert output_shapes(network, (3, 64, 64))["fc"] == (3,)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_picture_that_the_network_does_not_take_is_an_error_and_leaves_no_hooks() -> None:
    network = get_model("lenet5")
    with pytest.raises(RuntimeError):
        output_shapes(network, (3, 32, 32))
    assert not any(module._forward_hooks for module in network.modules())
