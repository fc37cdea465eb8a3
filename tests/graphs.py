"""The ONNX Model Zoo's graphs, with weights.

The ``onnx`` package carries the zoo's graphs for its own tests, with the weights replaced by one constant. Here they
get random weights again, of a scale at which a signal comes through, so that every layer has a say in the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from models.checkpoints.weights import Weights

Array = npt.NDArray[np.float32]
Edit = Callable[[Any], None]
"""Changes a graph in place."""


def zoo_graph(name: str, *, seed: int = 0, blank: bool = False) -> Any:
    """A graph of the package's (``light_NAME.onnx``), or ``vgg16``, as the zoo has it: weights as initialisers.

    Args:
        seed: of the weights.
        blank: zeros of one byte each instead, for a large graph that is refused before its numbers matter.
    """
    model = _vgg16() if name == "vgg16" else onnx.load(light_file(name))
    graph, rng = model.graph, np.random.default_rng(seed)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    # Variances and scales are about one; with smaller scales the signal would vanish.
    about_one = {node.input[i] for node in norms for i in (1, 4)} | _scales(graph)
    for node in constants:
        shape = tuple(int(size) for size in shapes[node.input[0]])
        output = node.output[0]
        add_weight(model, output, np.zeros(shape, np.int8) if blank else _random(rng, shape, output in about_one))
        graph.node.remove(node)
    spare = {node.input[0] for node in constants}
    for values in (graph.initializer, graph.input):
        for value in [value for value in values if value.name in spare]:
            values.remove(value)
    return model


def _random(rng: np.random.Generator, shape: tuple[int, ...], about_one: bool) -> Array:
    # A million numbers are repeated in large weights, which take seconds to draw; their rows still differ.
    array = np.resize(rng.standard_normal(min(math.prod(shape), 1_000_003), dtype=np.float32), shape)
    # He's scale for weights; biases are not zero, so that their order matters.
    array *= np.float32(0.05 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[-3:] if len(shape) == 4 else shape[1:])))
    return np.abs(1 + 4 * array) if about_one else array


def light_file(name: str) -> Path:
    """The package's own file, which has no weights: its graph computes them."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


def _vgg16() -> Any:
    """VGG-19, which the package has, without the fourth convolution and ReLU of the last three blocks."""
    model = onnx.load(light_file("vgg19"))
    nodes = model.graph.node
    for conv in [node for node in nodes if node.op_type == "Conv" and node.input[1].endswith("_4_w_0")]:
        (relu,) = (node for node in nodes if conv.output[0] in node.input)
        (pool,) = (node for node in nodes if relu.output[0] in node.input)
        pool.input[0] = conv.input[0]
        for spare in [conv, relu, *(node for node in nodes if node.output[0] in conv.input[1:])]:
            nodes.remove(spare)
    return model


def _scales(graph: Any) -> set[str]:
    """The constants by which Caffe's scale layers multiply, before the Unsqueeze that shapes them."""
    shaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Unsqueeze"}
    return {shaped.get(value, value) for node in graph.node if node.op_type == "Mul" for value in node.input}


def copied(model: Any) -> Any:
    """A copy of a graph, to edit."""
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
        node.attribute.append(helper.make_attribute("ceil_mode", 1))
    (last,) = (node for node in edited.graph.node if node.op_type == "AveragePool")
    last.op_type = "GlobalAveragePool"
    del last.attribute[:]
    return edited


def counted_padding(model: Any) -> Any:
    """BN-Inception's graph with Caffe's own averages, which count the padding."""
    edited = copied(model)
    pools = [node for node in edited.graph.node if node.op_type == "AveragePool" and any(attribute(node, "pads").ints)]
    assert len(pools) == 7
    for node in pools:
        node.attribute.append(helper.make_attribute("count_include_pad", 1))
    return edited


def without_softmax(model: Any) -> Any:
    """The graph up to its logits."""
    return cut_softmax(copied(model))


def cut_softmax(model: Any) -> Any:
    """Cuts the softmax off this very graph."""
    softmax = model.graph.node.pop()
    assert softmax.op_type == "Softmax"
    model.graph.output[0].name = softmax.input[0]
    return model


def attribute(node: Any, name: str) -> Any:
    return next(found for found in node.attribute if found.name == name)


def node(model: Any, name: str) -> Any:
    return next(found for found in model.graph.node if found.name == name)


# Edits.


def edits(*steps: Edit) -> Edit:
    def edit(model: Any) -> None:
        for step in steps:
            step(model)

    return edit


def opset(version: int) -> Edit:
    return lambda model: setattr(model.opset_import[0], "version", version)


def set_numbers(name: str, kind: str, values: list[int]) -> Edit:
    def edit(model: Any) -> None:
        attribute(node(model, name), kind).ints[:] = values

    return edit


def add(name: str, **attributes: Any) -> Edit:
    def edit(model: Any) -> None:
        for kind, value in attributes.items():
            node(model, name).attribute.append(helper.make_attribute(kind, value))

    return edit


def with_node(name: str, change: Edit) -> Edit:
    return lambda model: change(node(model, name))


def swap_inputs(node: Any) -> None:
    node.input[0], node.input[1] = node.input[1], node.input[0]


def replace_weight(name: str, array: np.ndarray[Any, Any]) -> Edit:
    def edit(model: Any) -> None:
        for values in (model.graph.initializer, model.graph.input):
            for value in [value for value in values if value.name == name]:
                values.remove(value)
        add_weight(model, name, array)

    return edit


def add_weight(model: Any, name: str, array: np.ndarray[Any, Any]) -> str:
    """A constant of that name, among the inputs too, as in all files of this age."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    if array.dtype == object:
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    else:  # the same without its copies: some weights have 400 MB
        model.graph.initializer.add(name=name, dims=array.shape, data_type=kind, raw_data=array.tobytes())
    model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return name


# Answers.


def answers(model: Any, pictures: Array) -> Array:
    """What ONNX Runtime makes of (N, 3, H, W), a picture at a time: the zoo's graphs have a batch of one.

    Args:
        model: a graph, or the path of one, which takes less memory.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every weight that is an input too
    # Threads that spin while they wait take cores from others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    (name,) = {value.name for value in session.get_inputs()}
    return np.stack([session.run(None, {name: picture[None]})[0].reshape(-1) for picture in pictures])


def logits(network: torch.nn.Module, pictures: Array) -> Array:
    with torch.inference_mode():
        found: Array = network(torch.from_numpy(pictures)).numpy()
    return found


def distance(found: Array, expected: Array) -> float:
    """The largest difference, in standard deviations of what is expected."""
    return float(np.abs(found - expected).max() / expected.std())


def same_weights(first: Weights, second: Weights) -> bool:
    return first.state.keys() == second.state.keys() and all(
        torch.equal(tensor, second.state[name]) for name, tensor in first.state.items()
    )


def patches(count: int, *, side: int = 224, seed: int = 0) -> Array:
    """Pictures of coarse coloured patches, in the range of Caffe's input. Fine noise would not do: after a few pools
    all of it looks alike."""
    coarse = np.random.default_rng(seed).standard_normal((count, 3, side // 16, side // 16))
    return (np.kron(coarse, np.ones((16, 16))) * 50).astype(np.float32)
