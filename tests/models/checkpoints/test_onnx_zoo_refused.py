"""Graphs that differ from the network: each is refused in one line that names the difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.checkpoints.catalogue import WrongWeightsError
from models.checkpoints.weights import Weights, read_weights
from models.networks.variants import VARIANTS
from tests import graphs
from tests.graphs import Edit, add, edits, opset, replace_weight, set_numbers, swap_inputs, with_node

GOOGLENET = VARIANTS["googlenet"]


@pytest.fixture(scope="module")
def inception() -> Any:
    return graphs.zoo_graph("inception_v1")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One file for all edited graphs, which are large."""
    path = tmp_path_factory.mktemp("graphs") / "graph.onnx"
    yield path
    path.unlink()


def read(model: Any, file: Path, variant: str = "googlenet") -> Weights:
    onnx.save(model, file)
    return read_weights(VARIANTS[variant], file)


@pytest.fixture(scope="module")
def weights(inception: Any, file: Path) -> Weights:
    """The weights of the unedited graph."""
    return read(inception, file)


def refuse(file: Path, variant: str = "googlenet", *, as_graph: bool = False) -> str:
    with pytest.raises(WrongWeightsError) as caught:
        read_weights(VARIANTS[variant], file, as_graph=as_graph)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


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


#: The damage -> the edit of the graph, and a part of the error.
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
        with_node("n137", swap_inputs),
        "inception5b.branch2.1.conv is expected: its kernel is (1, 1)",
    ),
    "a branch less": (with_node("n137", drop_branch), "Concat n137"),
    "axis": (with_node("n137", lambda node: setattr(node.attribute[0], "i", 2)), "its axis is 2"),
    "another activation": (rename("Sigmoid"), "Sigmoid n7 stands where conv2.relu is expected: another kind of layer"),
    "a layer less": (with_node("n10", read_picture), "the picture"),
    "no bias": (with_node("n6", drop_bias), "nothing in the graph corresponds to conv2.conv.bias"),
    "a computed weight": (with_node("n6", no_constant), "'data_0' is not a constant of the graph"),
    "no output": (lambda model: model.graph.ClearField("output"), "its graph has no output"),
    "no last layer": (
        lambda model: setattr(model.graph.output[0], "name", "r137"),
        "does not end in a fully connected",
    ),
    "a wrong shape": (replace_weight("conv2/3x3_b_0", np.zeros(7, np.float32)), "its bias is (7,) where (192,)"),
    "text for numbers": (replace_weight("conv2/3x3_b_0", np.array(["a"] * 192, object)), "does not hold numbers"),
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


# Geometry, which is compared only if the network has that of the graph.


def padding_by_rule(model: Any) -> None:
    pool = graphs.node(model, "n138")
    pool.attribute.remove(graphs.attribute(pool, "pads"))
    add("n138", auto_pad="SAME_UPPER")(model)


AVERAGE = "AveragePool n138 stands where avgpool is expected"
NOT_WHOLE = AVERAGE + ": it does not average the whole map of (6, 6)"
#: The edit of the graph, and a part of the error with ``as_graph``. Without it our own geometry is taken.
GEOMETRY: dict[str, tuple[Edit, str]] = {
    "rounding up": (
        lambda model: model.CopyFrom(graphs.caffe_geometry(model)),
        "MaxPool n2 stands where pool1 is expected: its output size is (56, 56) where (55, 55) is expected",
    ),
    "padding at the end": (
        set_numbers("n9", "pads", [0, 0, 2, 2]),
        "MaxPool n9 stands where pool2 is expected: its output size is (28, 28) where (27, 27) is expected",
    ),
    "a small average": (set_numbers("n138", "kernel_shape", [5, 5]), NOT_WHOLE),
    "a small average, once": (
        edits(
            set_numbers("n138", "kernel_shape", [5, 5]),
            set_numbers("n138", "pads", [0, 0, 0, 0]),
            set_numbers("n138", "strides", [2, 2]),
        ),
        NOT_WHOLE,
    ),
    "several averages": (set_numbers("n138", "pads", [3, 3, 3, 3]), NOT_WHOLE),
    "counted padding": (add("n138", count_include_pad=1), NOT_WHOLE),
}

#: Windows that are invalid, or do not cover the map.
MALFORMED: dict[str, tuple[Edit, str]] = {
    "an average that begins outside": (
        edits(set_numbers("n138", "pads", [3, 3, 0, 0]), set_numbers("n138", "strides", [7, 7])),
        AVERAGE,
    ),
    "padding of the average by rule": (padding_by_rule, AVERAGE),
    "a kernel of one number": (set_numbers("n138", "kernel_shape", [7]), AVERAGE),
    "a kernel of three numbers": (set_numbers("n138", "kernel_shape", [7, 7, 7]), AVERAGE),
    "a stride of nothing": (set_numbers("n138", "strides", [0, 0]), AVERAGE),
    "padding of two numbers": (set_numbers("n2", "pads", [0, 0]), "MaxPool n2 stands where pool1 is expected"),
}


@pytest.mark.parametrize(
    "name",
    [*GEOMETRY, *MALFORMED],
)
def test_another_geometry_is_refused_with_as_graph(inception: Any, weights: Weights, file: Path, name: str) -> None:
    edit, expected = (GEOMETRY | MALFORMED)[name]
    model = graphs.copied(inception)
    edit(model)
    onnx.save(model, file)
    assert expected in refuse(file, as_graph=True)
    if name in GEOMETRY:
        assert graphs.same_weights(read_weights(GOOGLENET, file), weights)


def test_zfnets_pools_must_round_as_ours_without_as_graph_too(tmp_path: Path) -> None:
    path, model = tmp_path / "graph.onnx", graphs.zoo_graph("zfnet512", blank=True)
    # A map of 109 needs no rounding with a window of three; a map of 110 does.
    edits(opset(10), add("n3", ceil_mode=1), set_numbers("n3", "pads", [0, 0, 1, 1]))(model)
    onnx.save(model, path)
    text = refuse(path, "zfnet512")
    path.unlink()
    assert "n3 stands where pool1 is expected: its output size is (55, 55) where (54, 54)" in text


def test_a_layer_that_the_graph_has_twice_with_different_weights_is_refused(inception: Any, file: Path) -> None:
    """The first branch of 3a takes a second convolution, which our network does not have."""
    model = graphs.copied(inception)
    place = [node.name for node in model.graph.node].index("n9") + 1
    other = np.random.default_rng(1).standard_normal((192, 64, 3, 3)).astype(np.float32)
    value = graphs.node(model, "n6").input[0]
    for name in ("n6", "n7", "n8", "n9"):
        twin = graphs.copied(graphs.node(model, name))
        twin.name, twin.input[0], twin.output[0] = name + "twin", value, f"{name}twin"
        value = twin.output[0]
        model.graph.node.insert(place, twin)
        place += 1
    graphs.node(model, "n6twin").input[1] = graphs.add_weight(model, "other", other)
    graphs.node(model, "n10").input[0] = value
    onnx.save(model, file)
    assert "MaxPool n9twin stands where pool2 is expected: another one stands there too" in refuse(file)


# Whole files.


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("alexnet", "is not the graph of alexnet: "),
        ("vgg16", "is not the graph of vgg16: "),
        ("lenet5", "lenet5 takes no pictures of (3, 224, 224), as the graph does"),
    ],
)
def test_another_networks_graph_is_refused(inception: Any, file: Path, variant: str, expected: str) -> None:
    onnx.save(inception, file)
    assert expected in refuse(file, variant)


def test_vgg_19s_graph_is_not_vgg_16s(file: Path) -> None:
    onnx.save(graphs.zoo_graph("vgg19", blank=True), file)
    # The fourth convolution of the last block pairs with the third, and so on: the first is one too many.
    assert "Relu n29 stands where features.23 is expected: another kind of layer" in refuse(file, "vgg16")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.999])
def test_a_truncated_file_is_refused(inception: Any, file: Path, share: float) -> None:
    data = inception.SerializeToString()
    file.write_bytes(data[: int(share * len(data))])
    assert "is not a complete ONNX file" in refuse(file)


def test_the_packages_own_graph_has_no_weights(file: Path) -> None:
    file.write_bytes(graphs.light_file("inception_v1").read_bytes())
    assert "is not a constant of the graph" in refuse(file)


def test_damage_anywhere_is_refused_and_nothing_else_is_raised(file: Path) -> None:
    """The small file has no weights, so that it is refused with or without damage; nothing else may be raised."""
    data, rng = graphs.light_file("bvlc_alexnet").read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        file.write_bytes(damaged)
        refuse(file, "alexnet")


def test_an_equivalent_graph_is_accepted(inception: Any, weights: Weights, file: Path) -> None:
    """The kernel's size only in the weights, a transposed fully connected layer, no softmax and no dropout."""
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
    assert graphs.same_weights(read(model, file), weights)
