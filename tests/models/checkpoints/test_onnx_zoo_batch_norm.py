"""Batch norm in the zoo's BN-Inception: Caffe's scale layer and a bias are folded into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from models import get_model
from models.checkpoints.catalogue import Catalogue, WrongWeightsError
from models.checkpoints.weights import read_weights
from models.install.import_ import import_file
from models.networks.variants import VARIANTS
from tests import graphs
from tests.graphs import Array, Edit, add, replace_weight, set_numbers, swap_inputs, with_node

BN_INCEPTION = VARIANTS["inception_v2"]
PICTURES = graphs.patches(1)
SCALE, VARIANCE = "conv1/7x7_s2/bn/sc_w_0", "conv1/7x7_s2/bn_var_0"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch's threads spin while they wait, so that several are slower than one on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def inception() -> Any:
    return graphs.cut_softmax(graphs.zoo_graph("inception_v2"))


@pytest.fixture(scope="module")
def as_is(inception: Any) -> Array:
    """The answers of the unedited graph."""
    return graphs.answers(inception, PICTURES)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One file for all edited graphs, which are large."""
    path = tmp_path_factory.mktemp("graphs") / "graph.onnx"
    yield path
    path.unlink()


def test_the_padding_is_counted_as_in_caffe_unless_as_graph_is_asked_for(
    inception: Any, as_is: Array, file: Path, tmp_path: Path
) -> None:
    """The stored checkpoint has the same geometry."""
    counted = graphs.counted_padding(inception)
    caffes = graphs.answers(counted, PICTURES)
    assert graphs.distance(caffes, as_is) > 0.1
    for model, as_graph, expected in ((inception, True, as_is), (inception, False, caffes), (counted, False, caffes)):
        onnx.save(model, file)
        stored = import_file(BN_INCEPTION, file, Catalogue(tmp_path), as_graph=as_graph)
        assert stored.path is not None
        assert stored.network == ({"as_graph": True} if as_graph else {})
        assert graphs.distance(graphs.logits(get_model("inception_v2", weights=stored.path), PICTURES), expected) < 1e-4
        stored.path.unlink()


# Nodes that may follow a convolution. Each edit is made after all 69 of them.


def scale_layers(model: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
    """The convolution, norm, Mul and Add of every layer."""
    producers = {node.output[0]: node for node in model.graph.node}
    for last in [node for node in model.graph.node if node.op_type == "Add"]:
        scale = producers[last.input[0]]
        norm = producers[scale.input[0]]
        yield producers[norm.input[0]], norm, scale, last


def swap_operands(model: Any) -> None:
    for _, _, scale, last in scale_layers(model):
        swap_inputs(scale)
        swap_inputs(last)


def scale_only(model: Any) -> None:
    for _, _, scale, last in scale_layers(model):
        scale.output[0] = last.output[0]
        model.graph.node.remove(last)


def shift_only(model: Any) -> None:
    for _, _, scale, last in scale_layers(model):
        last.input[0] = scale.input[0]
        model.graph.node.remove(scale)


def neither(model: Any) -> None:
    for _, norm, scale, last in scale_layers(model):
        norm.output[0] = last.output[0]
        model.graph.node.remove(scale)
        model.graph.node.remove(last)


def shift_first(model: Any) -> None:
    """(x + shift) * scale: the order matters."""
    shaped = {node.output[0]: node for node in model.graph.node if node.op_type == "Unsqueeze"}
    for _, _, scale, last in scale_layers(model):
        first, second = shaped[scale.input[1]], shaped[last.input[1]]
        first.input[0], second.input[0] = second.input[0], first.input[0]
        scale.op_type, last.op_type = "Add", "Mul"


def several(model: Any) -> None:
    """Another Add and another Mul, of constants that need no Unsqueeze."""
    rng = np.random.default_rng(1)
    for number, (_, norm, _, last) in enumerate(scale_layers(model)):
        (channels,) = (tensor.dims[0] for tensor in model.graph.initializer if tensor.name == norm.input[1])
        place, result = list(model.graph.node).index(last) + 1, last.output[0]
        last.output[0] = f"before{number}"
        constants = rng.uniform(0.5, 1.5, (2, channels, 1, 1)).astype(np.float32)
        shift = graphs.add_weight(model, f"shift{number}", constants[0] - 1)
        scale = graphs.add_weight(model, f"scale{number}", constants[1])
        model.graph.node.insert(place, helper.make_node("Add", [shift, last.output[0]], [f"shifted{number}"]))
        model.graph.node.insert(place + 1, helper.make_node("Mul", [f"shifted{number}", scale], [result]))


def biases(model: Any) -> None:
    """Our convolutions have no biases: they go into the running means."""
    rng = np.random.default_rng(1)
    for number, (conv, norm, _, _) in enumerate(scale_layers(model)):
        (channels,) = (tensor.dims[0] for tensor in model.graph.initializer if tensor.name == norm.input[1])
        bias = rng.standard_normal(channels).astype(np.float32)
        conv.input.append(graphs.add_weight(model, f"bias{number}", bias))


def default_epsilon(model: Any) -> None:
    for _, norm, _, _ in scale_layers(model):
        norm.attribute.remove(graphs.attribute(norm, "epsilon"))


#: An edit -> whether it changes the answers.
WAYS: dict[str, tuple[Edit, bool]] = {
    "operands the other way round": (swap_operands, False),
    "scale only": (scale_only, True),
    "shift only": (shift_only, True),
    "neither": (neither, True),
    "shift before scale": (shift_first, True),
    "several": (several, True),
    "biases": (biases, True),
    "epsilon by default": (default_epsilon, False),
}


@pytest.mark.parametrize("name", WAYS)
def test_nodes_around_a_batch_norm_are_folded_into_it(inception: Any, as_is: Array, file: Path, name: str) -> None:
    edit, changes = WAYS[name]
    edited = graphs.copied(inception)
    edit(edited)
    expected = graphs.answers(edited, PICTURES)
    assert (graphs.distance(expected, as_is) > 0.1) == changes
    onnx.save(edited, file)
    found = graphs.logits(get_model("inception_v2", weights=file, as_graph=True), PICTURES)
    assert graphs.distance(found, expected) < 1e-4


# Nodes that may not.


def set_input(name: str, place: int, value: str) -> Edit:
    return with_node(name, lambda node: node.input.__setitem__(place, value))


def bias_of(length: int) -> Edit:
    def edit(model: Any) -> None:
        graphs.node(model, "n0").input.append(graphs.add_weight(model, "bias", np.ones(length, np.float32)))

    return edit


#: The damage -> the edit of the graph, and a part of the error.
EDITS: dict[str, tuple[Edit, str]] = {
    "epsilon": (
        with_node("n1", lambda node: setattr(graphs.attribute(node, "epsilon"), "f", 1e-3)),
        "BatchNormalization n1 stands where conv1.bn is expected: its epsilon is 0.001 where 1e-05 is expected",
    ),
    "a short scale": (replace_weight(SCALE, np.ones(7, np.float32)), "Mul n3 stands where conv1.bn is expected: its c"),
    "one scale for all": (
        replace_weight(SCALE, np.ones(1, np.float32)),
        "its constant is (1, 1, 1) where (64, 1, 1) is expected",
    ),
    "two computed values": (set_input("n3", 1, "r1"), "Mul n3 stands where conv1.bn is expected: it takes no constant"),
    "no batch norm": (set_input("n3", 0, "r0"), "Conv n0 stands where conv1.bn is expected: another kind of layer"),
    "scaled picture": (set_input("n3", 0, "data_0"), "the picture stands where conv1.bn is expected"),
    "scaled before": (set_input("n9", 0, "r5"), "Add n5 stands where conv2_reduce.conv is expected: another kind"),
    "kernel": (
        set_numbers("n65", "kernel_shape", [5, 5]),
        "AveragePool n65 stands where inception3a.branch4.0 is expected: its kernel is (5, 5) where (3, 3)",
    ),
    "padding": (set_numbers("n65", "pads", [0, 0, 0, 0]), "its padding is (0, 0) where (1, 1) is expected"),
    "padding at the end": (set_numbers("n65", "pads", [1, 1, 2, 2]), "its output size is (29, 29) where (28, 28)"),
    "counted padding": (add("n65", count_include_pad=1), "its count_include_pad is True where False is expected"),
    "NaN": (replace_weight(VARIANCE, np.full(64, np.nan, np.float32)), "conv1.bn.running_var has values that are not"),
    "branches": (with_node("n73", swap_inputs), "inception3a.branch2.1.conv is expected: its kernel is (1, 1)"),
    "branches of stride 2": (with_node("n161", swap_inputs), "inception3c.branch3.2.bn is expected: its constant is"),
    "a short bias": (bias_of(7), "bias"),
    "one bias for all": (bias_of(1), "bias"),
    "a scale along the width": (set_numbers("n2", "axes", [0, 1]), "Mul n3"),
    "a negative variance": (replace_weight(VARIANCE, np.full(64, -1, np.float32)), "conv1.bn.running_var"),
}


@pytest.mark.parametrize(
    "name",
    EDITS,
)
def test_a_batch_norm_that_differs_is_refused(inception: Any, file: Path, name: str) -> None:
    edit, expected = EDITS[name]
    edited = graphs.copied(inception)
    edit(edited)
    onnx.save(edited, file)
    with pytest.raises(WrongWeightsError) as caught:
        read_weights(BN_INCEPTION, file, as_graph=True)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert "\n" not in text
    assert expected in text
