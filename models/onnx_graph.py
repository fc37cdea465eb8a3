"""An ONNX file as a graph of values: what computes each, and the constants among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from models.checkpoints import WrongWeightsError

#: What changes nothing at inference, or only the shape.
_PASSES = frozenset({"Dropout", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})


class OnnxGraph:
    """The graph of a file.

    Raises:
        WrongWeightsError: no whole ONNX file, or it lacks what every classifier has.
    """

    def __init__(self, path: Path) -> None:
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except Exception as error:
            # protobuf's DecodeError, onnx's ValidationError, FileNotFoundError for external data ...
            first = str(error).strip().splitlines() or ["unreadable"]
            raise WrongWeightsError(f"{path} is no whole ONNX file: {first[0]}") from error
        if not model.graph.output:
            raise WrongWeightsError(f"{path} is no whole ONNX file: its graph has no output")
        self.path = path
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.output = model.graph.output[0].name
        self._inputs = [value for value in model.graph.input if value.name not in self.weights]

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the picture; None if the graph leaves them open."""
        sizes = [size.dim_value for value in self._inputs[:1] for size in value.type.tensor_type.shape.dim]
        return (sizes[1], sizes[2], sizes[3]) if len(sizes) == 4 and all(sizes[1:]) else None

    def logits(self) -> str:
        """The value before the softmax."""
        node = self.node(self.output)
        return str(node.input[0]) if node is not None and node.op_type == "Softmax" else str(self.output)

    @property
    def num_classes(self) -> int:
        node = self.node(self.logits())
        if node is None or node.op_type != "Gemm" or len(node.input) < 3:
            raise WrongWeightsError(f"{self.path}: the graph does not end in a fully connected layer")
        return int(self.weight(node.input[2]).size)

    def node(self, value: str) -> onnx.NodeProto | None:
        """What computes a value, behind what changes nothing; None for the graph's input."""
        node = self.producers.get(value)
        while node is not None and node.op_type in _PASSES:
            node = self.producers.get(node.input[0])
        return node

    def weight(self, value: str) -> npt.NDArray[np.float32]:
        """A constant tensor; a Reshape over one is seen through (Caffe's fully connected weights are 4-D)."""
        name = self._constant(value)
        if name is None:
            raise WrongWeightsError(f"{self.path}: {value!r} is no constant of the graph")
        value = name
        try:
            return np.asarray(numpy_helper.to_array(self.weights[value]), dtype=np.float32)
        except ValueError as error:
            raise WrongWeightsError(f"{self.path}: {value!r} holds no numbers") from error

    def is_constant(self, value: str) -> bool:
        return self._constant(value) is not None

    def _constant(self, value: str) -> str | None:
        """The name of the constant that a value is, behind what changes only its shape."""
        node = self.producers.get(value)
        while node is not None and node.op_type in _PASSES:
            value, node = node.input[0], self.producers.get(node.input[0])
        return value if value in self.weights else None
