"""The ONNX Model Zoo's graphs, with weights.

The ``onnx`` package carries the zoo's graphs for its own tests, with the weights replaced by one constant. Here they
get random weights again, of a scale at which a signal comes through, so that every layer has a say in the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper

Array = npt.NDArray[np.float32]


def zoo_graph(name: str, *, seed: int = 0) -> Any:
    """A graph of the package's (``light_NAME.onnx``) as the zoo has it: weights as initialisers."""
    model = onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(seed)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in constants:
        shape = tuple(int(size) for size in shapes[node.input[0]])
        array = rng.standard_normal(shape, dtype=np.float32)
        # He's scale for weights; biases a little off zero, or their order would not matter.
        array *= np.float32(
            0.05 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[-3:] if len(shape) == 4 else shape[1:]))
        )
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        # Files of this age list their weights among the inputs too.
        graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape))
        graph.node.remove(node)
    spare = {node.input[0] for node in constants}
    for values in (graph.initializer, graph.input):
        for value in [value for value in values if value.name in spare]:
            values.remove(value)
    return model


def copied(model: Any) -> Any:
    """A graph of its own to edit."""
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def caffe_geometry(model: Any) -> Any:
    """The graph with Caffe's own rounding, which the zoo's conversion lost: the four pools of stride 2 round up, and
    the last average pool takes the whole map."""
    edited = copied(model)
    # The first version in which MaxPool has ceil_mode.
    edited.opset_import[0].version = 10
    pools = [node for node in edited.graph.node if node.op_type == "MaxPool"]
    pools = [node for node in pools if list(attribute(node, "strides").ints) == [2, 2]]
    assert len(pools) == 4
    for node in pools:
        node.attribute.append(onnx.helper.make_attribute("ceil_mode", 1))
    (last,) = (node for node in edited.graph.node if node.op_type == "AveragePool")
    last.op_type = "GlobalAveragePool"
    del last.attribute[:]
    return edited


def without_softmax(model: Any) -> Any:
    """The graph up to its logits."""
    edited = copied(model)
    softmax = edited.graph.node.pop()
    assert softmax.op_type == "Softmax"
    edited.graph.output[0].name = softmax.input[0]
    return edited


def attribute(node: Any, name: str) -> Any:
    return next(found for found in node.attribute if found.name == name)


def node(model: Any, name: str) -> Any:
    return next(found for found in model.graph.node if found.name == name)


def answers(model: Any, pictures: Array) -> Array:
    """What ONNX Runtime makes of (N, 3, H, W), a picture at a time: the zoo's graphs have a batch of one."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every weight that is an input too
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"data_0": picture[None]})[0].reshape(-1) for picture in pictures])


def patches(count: int, *, side: int = 224, seed: int = 0) -> Array:
    """Pictures of coarse coloured patches, in the range of Caffe's input. Fine noise would not do: after a few pools
    all of it looks alike."""
    coarse = np.random.default_rng(seed).standard_normal((count, 3, side // 16, side // 16))
    return (np.kron(coarse, np.ones((16, 16))) * 50).astype(np.float32)
