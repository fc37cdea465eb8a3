"""Windows of ONNX nodes, and the graph of a file. The zoo's own graphs are in test_onnx_zoo.py."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.checkpoints.catalogue import WrongWeightsError
from models.checkpoints.onnx_graph import OnnxGraph, Window


def pool(kind: str = "AveragePool", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["x"], ["y"], **{"kernel_shape": [3, 3], **attributes})


def test_attributes_that_are_left_out_have_onnxs_defaults() -> None:
    window = Window.read(pool())
    assert window == Window(
        kernel=(3, 3),
        stride=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        ceil_mode=False,
        count_include_pad=False,
    )


def test_attributes_that_are_given_are_read() -> None:
    window = Window.read(pool(strides=[2, 1], pads=[1, 2, 3, 4], dilations=[1, 2], ceil_mode=1, count_include_pad=1))
    assert window == Window((3, 3), (2, 1), (1, 2, 3, 4), (1, 2), True, True)
    # Only the padding that torch has too.
    assert window.numbers() == {"kernel": (3, 3), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}


def test_a_kernel_may_be_left_to_the_weights() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    assert Window.read(node, (5, 7)).kernel == (5, 7)
    assert Window.read(pool(), (5, 7)).kernel == (3, 3)
    with pytest.raises(ValueError, match="its kernel_shape is"):
        Window.read(node)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"kernel_shape": [3]}, r"its kernel_shape is \(3,\)"),
        ({"kernel_shape": [3, 0]}, r"its kernel_shape is \(3, 0\)"),
        ({"strides": [0, 1]}, r"its strides is \(0, 1\)"),
        ({"strides": [1, 1, 1]}, "its strides is"),
        ({"dilations": [1, 0]}, "its dilations is"),
        ({"pads": [0, 0]}, r"its pads is \(0, 0\)"),
        ({"pads": [0, 0, 0, -1]}, "its pads is"),
    ],
)
def test_an_attribute_that_is_invalid_is_named(attributes: dict[str, list[int]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Window.read(pool(**attributes))


@pytest.mark.parametrize(
    ("rule", "padding"), [("NOTSET", (1, 1, 1, 1)), ("VALID", (1, 1, 1, 1)), ("SAME_UPPER", ("SAME_UPPER",))]
)
def test_padding_by_rule_equals_no_padding_of_torch(rule: str, padding: tuple[Any, ...]) -> None:
    assert Window.read(pool(pads=[1, 1, 1, 1], auto_pad=rule)).padding == padding


SIZES = list(product((5, 6, 7), (1, 2, 3), ([0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]), (0, 1)))


def test_a_pools_output_has_the_size_that_onnx_runtime_gives_it() -> None:
    for side, stride, pads, ceil in SIZES:
        node = pool("MaxPool", strides=[stride, 1], pads=pads, ceil_mode=ceil)
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, side, 6])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, list("nchw"))]
        model = helper.make_model(
            helper.make_graph([node], "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 12)], ir_version=8
        )
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"x": np.zeros((1, 1, side, 6), np.float32)})
        assert Window.read(node).output((side, 6)) == found.shape[2:], (side, stride, pads, ceil)


@pytest.mark.parametrize(
    ("attributes", "size", "whole"),
    [
        ({"kernel_shape": [7, 7]}, (7, 7), True),
        ({"kernel_shape": [6, 7]}, (7, 7), False),
        ({"kernel_shape": [7, 7], "pads": [0, 0, 1, 1]}, (6, 6), True),
        ({"kernel_shape": [7, 7], "pads": [0, 0, 1, 1], "count_include_pad": 1}, (6, 6), False),
        ({"kernel_shape": [7, 7], "count_include_pad": 1}, (7, 7), True),
        ({"kernel_shape": [7, 7], "pads": [1, 1, 0, 0]}, (6, 6), True),
        # It begins two pixels outside, and ends one before the end.
        ({"kernel_shape": [7, 7], "pads": [2, 2, 0, 0], "strides": [7, 7]}, (6, 6), False),
        ({"kernel_shape": [7, 7]}, (8, 8), False),
        ({"kernel_shape": [4, 4], "dilations": [2, 2]}, (7, 7), False),
        ({"kernel_shape": [7, 7], "auto_pad": "SAME_UPPER"}, (7, 7), False),
    ],
)
def test_an_average_covers_the_map_if_it_averages_all_of_it_and_nothing_else(
    attributes: dict[str, Any], size: tuple[int, int], whole: bool
) -> None:
    assert Window.read(pool(**attributes)).covers(size) == whole


def saved(path: Path, nodes: list[onnx.NodeProto], output: str, **weights: Any) -> OnnxGraph:
    """A graph of these nodes, which take a picture, saved and read again."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "c"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), path)
    return OnnxGraph(path)


@pytest.fixture
def classifier(tmp_path: Path) -> OnnxGraph:
    """The picture, flattened and dropped out, a fully connected layer with a reshaped weight, and a softmax."""
    nodes = [
        helper.make_node("Flatten", ["data"], ["flat"]),
        helper.make_node("Dropout", ["flat"], ["dropped"]),
        helper.make_node("Reshape", ["w", "shape"], ["wide"]),
        helper.make_node("Gemm", ["dropped", "wide", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    weights = {"w": np.ones((48, 1, 5), np.float32), "b": np.arange(5, dtype=np.float32), "shape": np.array([48, 5])}
    return saved(tmp_path / "graph.onnx", nodes, "probabilities", **weights)


def test_a_classifier_is_read_from_its_end(classifier: OnnxGraph) -> None:
    assert classifier.input_shape == (3, 4, 4)
    assert classifier.logits() == "logits"
    assert classifier.num_classes == 5


def test_a_graph_may_end_in_its_logits(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["data"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["y"])]
    graph = saved(tmp_path / "g.onnx", nodes, "y", w=np.ones((48, 2), np.float32), b=np.ones(2, np.float32))
    assert (graph.logits(), graph.num_classes) == ("y", 2)


def test_nodes_without_effect_are_skipped_and_reshapes_are_reported(classifier: OnnxGraph) -> None:
    assert classifier.node("dropped") is None
    assert classifier.reshapes("dropped")
    assert not classifier.reshapes("logits")
    node = classifier.node("logits")
    assert node is not None
    assert node.op_type == "Gemm"


def test_a_constant_is_found_behind_its_reshape(classifier: OnnxGraph) -> None:
    assert classifier.is_constant("wide")
    assert not classifier.is_constant("dropped")
    assert classifier.weight("wide").shape == (48, 1, 5)
    assert classifier.constant_shape("wide") == (48, 5)
    assert classifier.weight("b").tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(WrongWeightsError, match="'flat' is not a constant of the graph"):
        classifier.weight("flat")


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "shape"),
    [
        ("Unsqueeze", ["w"], {"axes": [0, 2]}, (1, 2, 1, 3)),
        ("Squeeze", ["long"], {}, (4,)),
        ("Squeeze", ["long"], {"axes": [0]}, (4, 1)),
        ("Flatten", ["deep"], {}, (2, 12)),
        ("Reshape", ["w", "to"], {}, (3, 2)),
        ("Identity", ["w"], {}, (2, 3)),
    ],
)
def test_the_shape_of_a_constant_follows_what_is_done_to_it(
    tmp_path: Path, kind: str, inputs: list[str], attributes: dict[str, Any], shape: tuple[int, ...]
) -> None:
    weights = {
        "w": np.ones((2, 3), np.float32),
        "long": np.ones((1, 4, 1), np.float32),
        "deep": np.ones((2, 3, 4), np.float32),
        "to": np.array([3, 2]),
    }
    graph = saved(tmp_path / "g.onnx", [helper.make_node(kind, inputs, ["y"], **attributes)], "y", **weights)
    assert graph.constant_shape("y") == shape


def test_a_picture_of_any_size_has_no_shape(tmp_path: Path) -> None:
    for dims in ([1, 3, 0, 4], ["n", 3, "height", 4], [1, 48]):
        info = helper.make_tensor_value_info("data", TensorProto.FLOAT, dims)
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, list("nchw"))
        graph = helper.make_graph([helper.make_node("Relu", ["data"], ["y"])], "g", [info], [output])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), tmp_path / "g")
        assert OnnxGraph(tmp_path / "g").input_shape is None


def test_a_graph_without_a_fully_connected_end_has_no_classes(tmp_path: Path) -> None:
    graph = saved(tmp_path / "g.onnx", [helper.make_node("Relu", ["data"], ["y"])], "y")
    with pytest.raises(WrongWeightsError, match="does not end in a fully connected layer"):
        _ = graph.num_classes
