"""The graph of an ONNX file: which node computes a value, and which values are constants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from models.checkpoints.catalogue import WrongWeightsError

#: Nodes that change only the shape.
_SHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
#: Nodes that are skipped: shape changes, and nodes without effect at inference.
_PASSES = _SHAPES | {"Dropout", "Identity"}


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a convolution or a pool."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[Any, ...]
    """Top, left, bottom, right; or the name of ONNX's auto-padding rule, for which torch has no equal."""
    dilation: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool

    @classmethod
    def read(cls, node: onnx.NodeProto, kernel: tuple[int, ...] | None = None) -> Window:
        """Reads the attributes of a node.

        Args:
            node: a convolution or a pool.
            kernel: its kernel, if the attributes may leave it out.

        Raises:
            ValueError: an attribute is invalid; the text says which.
        """
        given = attributes(node)
        if kernel is not None:
            given.setdefault("kernel_shape", kernel)
        rule = given.get("auto_pad", b"NOTSET").decode()
        pads = given.get("pads", (0, 0, 0, 0))
        for name, values, count, least in (
            ("kernel_shape", given.get("kernel_shape", ()), 2, 1),
            ("strides", given.get("strides", (1, 1)), 2, 1),
            ("dilations", given.get("dilations", (1, 1)), 2, 1),
            ("pads", pads, 4, 0),
        ):
            if len(values) != count or min(values) < least:
                raise ValueError(f"its {name} is {tuple(values)}")
        return cls(
            kernel=tuple(given["kernel_shape"]),
            stride=tuple(given.get("strides", (1, 1))),
            padding=tuple(pads) if rule in ("NOTSET", "VALID") else (rule,),
            dilation=tuple(given.get("dilations", (1, 1))),
            ceil_mode=bool(given.get("ceil_mode", 0)),
            count_include_pad=bool(given.get("count_include_pad", 0)),
        )

    def numbers(self) -> dict[str, tuple[Any, ...]]:
        """The numbers that torch's layers have too. Padding at the bottom and right, which they lack, is left out."""
        return {
            "kernel": self.kernel,
            "stride": self.stride,
            "padding": self.padding[:2],
            "dilation": self.dilation,
        }

    def output(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Height and width of a pool's output, by ONNX's rule."""
        steps = []
        for i in range(2):
            span = size[i] + self.padding[i] + self.padding[i + 2] - self.dilation[i] * (self.kernel[i] - 1) - 1
            last = -(-span // self.stride[i]) if self.ceil_mode else span // self.stride[i]
            # A window that begins in the padding at the end does not count.
            begins_outside = last * self.stride[i] >= size[i] + self.padding[i]
            steps.append(last if self.ceil_mode and begins_outside else last + 1)
        return tuple(steps)

    def covers(self, size: tuple[int, ...]) -> bool:
        """Whether an average pool averages the whole map, and no padding."""
        if len(self.padding) != 4 or self.output(size) != (1, 1) or self.dilation != (1, 1):
            return False
        if self.count_include_pad and any(self.padding):
            return False
        return all(self.kernel[i] - self.padding[i] >= size[i] for i in range(2))


class OnnxGraph:
    """The graph of a file.

    Raises:
        WrongWeightsError: the file is not a complete ONNX file, or its graph has no output.
    """

    def __init__(self, path: Path) -> None:
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except Exception as error:
            # protobuf's DecodeError, onnx's ValidationError, FileNotFoundError for external data ...
            first = str(error).strip().splitlines() or ["unreadable"]
            raise WrongWeightsError(f"{path} is not a complete ONNX file: {first[0]}") from error
        if not model.graph.output:
            raise WrongWeightsError(f"{path} is not a complete ONNX file: its graph has no output")
        self.path = path
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.output = model.graph.output[0].name
        self._inputs = [value for value in model.graph.input if value.name not in self.weights]

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the picture; None if the graph does not fix them."""
        sizes = [size.dim_value for value in self._inputs[:1] for size in value.type.tensor_type.shape.dim]
        return (sizes[1], sizes[2], sizes[3]) if len(sizes) == 4 and all(sizes[1:]) else None

    def logits(self) -> str:
        """The name of the value before the softmax."""
        node = self.node(self.output)
        return str(node.input[0]) if node is not None and node.op_type == "Softmax" else str(self.output)

    @property
    def num_classes(self) -> int:
        node = self.node(self.logits())
        if node is None or node.op_type != "Gemm" or len(node.input) < 3:
            raise WrongWeightsError(f"{self.path}: the graph does not end in a fully connected layer")
        return int(self.weight(node.input[2]).size)

    def node(self, value: str) -> onnx.NodeProto | None:
        """The node that computes a value, skipping those that change nothing; None for the graph's input."""
        node = self.producers.get(value)
        while node is not None and node.op_type in _PASSES:
            node = self.producers.get(node.input[0])
        return node

    def reshapes(self, value: str) -> bool:
        """Whether the shape changes between ``node(value)`` and the value."""
        node = self.producers.get(value)
        while node is not None and node.op_type in _PASSES:
            if node.op_type in _SHAPES:
                return True
            node = self.producers.get(node.input[0])
        return False

    def weight(self, value: str) -> npt.NDArray[np.float32]:
        """A constant tensor, in its own shape: a Reshape of it is skipped (Caffe's fully connected weights are 4-D)."""
        name = self._constant(value)
        if name is None:
            raise WrongWeightsError(f"{self.path}: {value!r} is not a constant of the graph")
        value = name
        try:
            return np.asarray(numpy_helper.to_array(self.weights[value]), dtype=np.float32)
        except ValueError as error:
            raise WrongWeightsError(f"{self.path}: {value!r} does not hold numbers") from error

    def constant_shape(self, value: str) -> tuple[int, ...]:
        """The shape in which a constant is used, after Reshape and the like."""
        node = self.producers.get(value)
        if node is None:
            return tuple(self.weights[value].dims)
        before = np.empty(self.constant_shape(node.input[0]))
        axes = attributes(node).get("axes")
        if axes is None and len(node.input) > 1:
            axes = [int(axis) for axis in self.weight(node.input[1])]
        try:
            match node.op_type:
                case "Unsqueeze":
                    return tuple(np.expand_dims(before, tuple(axes or ())).shape)
                case "Reshape":
                    return tuple(before.reshape(axes or ()).shape)
                case "Squeeze":
                    return tuple(before.squeeze(None if axes is None else tuple(axes)).shape)
                case "Flatten":
                    return tuple(before.reshape(before.shape[0], -1).shape)
        except (ValueError, IndexError) as error:
            raise WrongWeightsError(f"{self.path}: {value!r} has no shape") from error
        return tuple(before.shape)

    def is_constant(self, value: str) -> bool:
        return self._constant(value) is not None

    def _constant(self, value: str) -> str | None:
        """The name of the constant behind a value, skipping changes of shape; None if it is not a constant."""
        node = self.producers.get(value)
        while node is not None and node.op_type in _PASSES:
            value, node = node.input[0], self.producers.get(node.input[0])
        return value if value in self.weights else None
