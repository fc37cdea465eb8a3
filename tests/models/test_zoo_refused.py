"""Graphs that are not quite the network: each refused in one line that names what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from models.checkpoints import WrongWeightsError
from models.reading import Weights, read_weights
from models.variants import VARIANTS
from tests import graphs

GOOGLENET = VARIANTS["googlenet"]
Edit = Callable[[Any], None]


@pytest.fixture(scope="module")
def inception() -> Any:
    return graphs.zoo_graph("inception_v1")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One file for all edits, one after the other: they are large."""
    path = tmp_path_factory.mktemp("graphs") / "graph.onnx"
    yield path
    path.unlink()


def read(model: Any, file: Path, variant: str = "googlenet") -> Weights:
    onnx.save(model, file)
    return read_weights(VARIANTS[variant], file)


def refuse(file: Path, variant: str = "googlenet") -> str:
    with pytest.raises(WrongWeightsError) as caught:
        read_weights(VARIANTS[variant], file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


def set_numbers(node: str, name: str, values: list[int]) -> Edit:
    def edit(model: Any) -> None:
        graphs.attribute(graphs.node(model, node), name).ints[:] = values

    return edit


def add(node: str, **attributes: Any) -> Edit:
    def edit(model: Any) -> None:
        for name, value in attributes.items():
            graphs.node(model, node).attribute.append(helper.make_attribute(name, value))

    return edit


def with_node(node: str, change: Callable[[Any], None]) -> Edit:
    return lambda model: change(graphs.node(model, node))


def replace_weight(name: str, array: np.ndarray[Any, Any]) -> Edit:
    def edit(model: Any) -> None:
        for value in model.graph.input:
            if value.name == name:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                value.CopyFrom(helper.make_tensor_value_info(name, kind, array.shape))
        for tensor in model.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(array, name))

    return edit


def swap_branches(node: Any) -> None:
    node.input[0], node.input[1] = node.input[1], node.input[0]


def drop_branch(node: Any) -> None:
    del node.input[3]


def read_picture(node: Any) -> None:
    node.input[0] = "data_0"


def drop_bias(node: Any) -> None:
    del node.input[2]


def no_constant(node: Any) -> None:
    node.input[1] = "data_0"


def rename(kind: str) -> Edit:
    def edit(model: Any) -> None:
        node = graphs.node(model, "n7")
        node.op_type = kind

    return edit


#: What is done to the graph -> what the refusal says.
EDITS: dict[str, tuple[Edit, str]] = {
    "stride": (
        set_numbers("n6", "strides", [2, 2]),
        "Conv n6 stands where conv2.conv is expected: its stride is (2, 2)",
    ),
    "kernel": (set_numbers("n2", "kernel_shape", [2, 2]), "MaxPool n2 stands where pool1 is expected: its kernel"),
    "padding": (set_numbers("n0", "pads", [2, 2, 2, 2]), "n0 stands where conv1.conv is expected: its padding"),
    "padding at the end": (set_numbers("n6", "pads", [1, 1, 2, 2]), "its padding is (1, 1, 2, 2)"),
    "padding by rule": (add("n6", auto_pad="SAME_UPPER"), "its padding is ('SAME_UPPER',)"),
    "dilation": (add("n6", dilations=[2, 2]), "its dilation is (2, 2)"),
    "alpha": (add("n142", alpha=0.5), "Gemm n142 stands where fc is expected: its alpha is 0.5"),
    "one LRN": (with_node("n8", lambda node: setattr(node.attribute[0], "i", 3)), "differ from those of the other LRN"),
    "order of branches": (
        with_node("n137", swap_branches),
        "inception5b.branch2.1.conv is expected: its kernel is (1, 1)",
    ),
    "a branch less": (with_node("n137", drop_branch), "Concat n137"),
    "axis": (with_node("n137", lambda node: setattr(node.attribute[0], "i", 2)), "its axis is 2"),
    "another activation": (rename("Sigmoid"), "Sigmoid n7 stands where conv2.relu is expected: another kind of layer"),
    "a layer less": (with_node("n10", read_picture), "the picture"),
    "no bias": (with_node("n6", drop_bias), "nothing in the graph stands for conv2.conv.bias"),
    "a computed weight": (with_node("n6", no_constant), "'data_0' is no constant of the graph"),
    "no output": (lambda model: model.graph.ClearField("output"), "its graph has no output"),
    "no last layer": (
        lambda model: setattr(model.graph.output[0], "name", "r137"),
        "does not end in a fully connected",
    ),
    "a wrong shape": (replace_weight("conv2/3x3_b_0", np.zeros(7, np.float32)), "its bias is (7,) where (192,)"),
    "text for numbers": (replace_weight("conv2/3x3_b_0", np.array(["a"] * 192, object)), "holds no numbers"),
    "NaN": (
        replace_weight("conv2/3x3_b_0", np.full(192, np.nan, np.float32)),
        "conv2.conv.bias has values that are not",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_graph_with_one_thing_changed_is_refused(inception: Any, file: Path, name: str) -> None:
    edit, expected = EDITS[name]
    model = graphs.copied(inception)
    edit(model)
    onnx.save(model, file)
    assert expected in refuse(file)


@pytest.mark.parametrize("variant", ["alexnet", "vgg16", "lenet5"])
def test_another_networks_graph_is_refused(inception: Any, file: Path, variant: str) -> None:
    onnx.save(inception, file)
    assert f"is not the graph of {variant}: " in refuse(file, variant)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.999])
def test_a_truncated_file_is_refused(inception: Any, file: Path, share: float) -> None:
    data = inception.SerializeToString()
    file.write_bytes(data[: int(share * len(data))])
    assert "is no whole ONNX file" in refuse(file)


def test_the_packages_own_graph_has_no_weights(file: Path) -> None:
    source = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_inception_v1.onnx"
    file.write_bytes(source.read_bytes())
    assert "is no constant of the graph" in refuse(file)


def test_damage_anywhere_is_refused_and_nothing_else_is_raised(file: Path) -> None:
    """On the small file without weights: whatever is damaged, it has none to give."""
    source = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_bvlc_alexnet.onnx"
    data, rng = source.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        file.write_bytes(damaged)
        refuse(file, "alexnet")


def same(first: Weights, second: Weights) -> bool:
    return first.state.keys() == second.state.keys() and all(
        torch.equal(tensor, second.state[name]) for name, tensor in first.state.items()
    )


def test_what_is_written_otherwise_but_means_the_same_is_taken(inception: Any, file: Path) -> None:
    """A kernel's size left to its weights, a fully connected layer the other way round, no softmax, no dropout."""
    expected = read(inception, file)
    model = graphs.without_softmax(inception)
    conv = graphs.node(model, "n6")
    conv.attribute.remove(graphs.attribute(conv, "kernel_shape"))
    add("n6", auto_pad="NOTSET", dilations=[1, 1])(model)
    fully_connected = graphs.node(model, "n142")
    del fully_connected.attribute[:]
    (classifier,) = (tensor for tensor in model.graph.initializer if tensor.name == "loss3/classifier_w_0")
    turned = numpy_helper.to_array(classifier).reshape(1000, 1024).T
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(turned), "turned"))
    model.graph.input.append(helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, turned.shape))
    fully_connected.input[1] = "turned"
    graphs.node(model, "n140").input[0] = "r138"
    model.graph.node.remove(graphs.node(model, "n139"))
    assert same(read(model, file), expected)
