"""Weights out of the ONNX Model Zoo's graphs.

The zoo's files were converted from Caffe and carry Caffe's tensor names, or none worth the name. So nothing is
matched by name: our own network is traced, and both graphs are walked backwards from the logits side by side. What
stands at the same place must be the same layer with the same numbers; its weights are then ours. A concatenation
keeps the order of its inputs, which is what tells the branches of an inception module apart.

Two things are not compared, since the conversion changed them: how a pool rounds (``as_graph`` keeps the graph's
way) and the size of the last average pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from models.checkpoints import WrongWeightsError
from models.layers import LocalResponseNorm
from models.variants import Variant

#: What changes nothing at inference, or only the shape.
_PASSES = frozenset({"Dropout", "Identity", "Reshape", "Flatten", "Squeeze"})


def read_graph(
    variant: Variant, path: Path, *, as_graph: bool, arguments: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state dict of a variant out of a zoo file, and the network arguments that the graph states (its LRN).

    Raises:
        WrongWeightsError: no whole ONNX file, or its graph is not this variant's; the text says what differs.
    """
    from models.building import build

    graph = _Graph(path)
    with torch.device("meta"):
        network = build(variant, num_classes=graph.num_classes, as_graph=as_graph, arguments=arguments)
    walk = _Walk(path, graph, network, variant.name)
    walk.pair(graph.logits(), walk.logits)
    missing = [name for name in network.state_dict() if name not in walk.state]
    if missing:
        raise WrongWeightsError(f"{path} does not fit {variant.name}: nothing in the graph stands for {missing[0]}")
    return walk.state, walk.arguments


class _Graph:
    """An ONNX graph by the names of its values."""

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
        node = self.producers.get(value)
        while node is not None and node.op_type in _PASSES:
            value, node = node.input[0], self.producers.get(node.input[0])
        if value not in self.weights:
            raise WrongWeightsError(f"{self.path}: {value!r} is no constant of the graph")
        try:
            return np.asarray(numpy_helper.to_array(self.weights[value]), dtype=np.float32)
        except ValueError as error:
            raise WrongWeightsError(f"{self.path}: {value!r} holds no numbers") from error


class _Tracer(fx.Tracer):
    """Traces a network down to the layers that ONNX has as nodes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LocalResponseNorm) or super().is_leaf_module(m, module_qualified_name)


class _Walk:
    """Pairs the nodes of both graphs, from the logits to the picture."""

    def __init__(self, path: Path, graph: _Graph, network: nn.Module, name: str) -> None:
        self.path, self.graph, self.name = path, graph, name
        self.layers = dict(network.named_modules())
        nodes = list(_Tracer().trace(network).nodes)
        self.logits: fx.Node = nodes[-1].all_input_nodes[0]
        self.state: dict[str, torch.Tensor] = {}
        self.arguments: dict[str, Any] = {}

    def pair(self, value: str, ours: fx.Node) -> None:
        """Walks from a pair of values (theirs by name) to the input."""
        todo, seen = [(value, ours)], set()
        while todo:
            theirs_name, ours = todo.pop()
            ours = self._behind_passes(ours)
            theirs = self.graph.node(theirs_name)
            key = (id(theirs) if theirs is not None else None, ours.name)
            if key not in seen:
                seen.add(key)
                todo += self._compare(theirs, ours)

    def _behind_passes(self, node: fx.Node) -> fx.Node:
        while (node.op == "call_module" and isinstance(self.layers[str(node.target)], nn.Dropout)) or (
            node.op == "call_function" and node.target is torch.flatten
        ):
            node = node.all_input_nodes[0]
        return node

    def _compare(self, theirs: onnx.NodeProto | None, ours: fx.Node) -> Iterator[tuple[str, fx.Node]]:
        """Checks one pair, takes its weights, and yields the pairs before it."""
        if theirs is None or ours.op == "placeholder":
            if theirs is not None or ours.op != "placeholder":
                raise self._differs(theirs, ours, "one of the two is the picture")
            return
        if theirs.op_type == "Concat" and ours.target is torch.cat:
            if len(theirs.input) != len(ours.all_input_nodes):
                raise self._differs(theirs, ours, "another number of branches")
            axis = onnx.helper.get_node_attr_value(theirs, "axis")
            if axis != 1:
                raise self._differs(theirs, ours, f"its axis is {axis} where 1 is expected")
            yield from zip(theirs.input, ours.all_input_nodes, strict=True)
            return
        layer = self.layers.get(str(ours.target)) if ours.op == "call_module" else None
        self._take(theirs, ours, layer)
        yield theirs.input[0], ours.all_input_nodes[0]

    def _take(self, theirs: onnx.NodeProto, ours: fx.Node, layer: nn.Module | None) -> None:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in theirs.attribute}
        match theirs.op_type, layer:
            case "Relu", nn.ReLU():
                return
            case "Conv", nn.Conv2d():
                given.setdefault("kernel_shape", self.graph.weight(theirs.input[1]).shape[2:])
                wanted = _numbers(layer)
                wanted |= {"padding": wanted["padding"] * 2, "groups": layer.groups}
                self._same(theirs, ours, _conv_numbers(given), wanted)
                self._take_weights(theirs, ours, layer, transpose=False)
            case "Gemm", nn.Linear():
                plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
                self._same(theirs, ours, plain | given, plain)
                self._take_weights(theirs, ours, layer, transpose=not given.get("transB", 0))
            case "MaxPool", nn.MaxPool2d():
                # Trailing padding and ceil_mode are the rounding rule.
                self._same(theirs, ours, _pool_numbers(given), _numbers(layer))
            case (("AveragePool" | "GlobalAveragePool"), nn.AdaptiveAvgPool2d()):
                return
            case "LRN", LocalResponseNorm():
                constants = {
                    "size": int(given["size"]),
                    "alpha": round(float(given.get("alpha", 1e-4)), 9),
                    "beta": round(float(given.get("beta", 0.75)), 9),
                    "k": round(float(given.get("bias", 1.0)), 9),
                }
                if self.arguments.setdefault("lrn", constants) != constants:
                    raise self._differs(theirs, ours, "its constants differ from those of the other LRN")
            case _:
                raise self._differs(theirs, ours, "another kind of layer")

    def _take_weights(self, theirs: onnx.NodeProto, ours: fx.Node, layer: nn.Module, *, transpose: bool) -> None:
        for name, value in zip(("weight", "bias"), theirs.input[1:], strict=False):
            array = self.graph.weight(value)
            wanted = tuple(getattr(layer, name).shape)
            if name == "weight" and isinstance(layer, nn.Linear):
                array = array.reshape(array.shape[-2:]) if array.ndim == 4 and array.shape[:2] == (1, 1) else array
                array = array.reshape(array.shape[0], -1)
                array = array.T if transpose else array
            if array.shape != wanted:
                raise self._differs(theirs, ours, f"its {name} is {array.shape} where {wanted} is expected")
            self.state[f"{ours.target}.{name}"] = torch.from_numpy(np.array(array, dtype=np.float32))

    def _same(self, theirs: onnx.NodeProto, ours: fx.Node, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        for key, value in wanted.items():
            if found[key] != value:
                raise self._differs(theirs, ours, f"its {key} is {found[key]} where {value} is expected")

    def _differs(self, theirs: onnx.NodeProto | None, ours: fx.Node, what: str) -> WrongWeightsError:
        node = "the picture" if theirs is None else f"{theirs.op_type} {theirs.name or theirs.output[0]}"
        layer = ours.target if ours.op == "call_module" else ours.name
        return WrongWeightsError(
            f"{self.path} is not the graph of {self.name}: {node} stands where {layer} is expected: {what}"
        )


def _numbers(layer: nn.Conv2d | nn.MaxPool2d) -> dict[str, Any]:
    def pair(value: Any) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else tuple(value)

    return {
        "kernel": pair(layer.kernel_size),
        "stride": pair(layer.stride),
        "padding": pair(layer.padding),
        "dilation": pair(layer.dilation),
    }


def _pool_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kernel": tuple(given["kernel_shape"]),
        "stride": tuple(given.get("strides", (1, 1))),
        "padding": _padding(given)[:2],
        "dilation": tuple(given.get("dilations", (1, 1))),
    }


def _conv_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    return _pool_numbers(given) | {"padding": _padding(given), "groups": given.get("group", 1)}


def _padding(given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Top, left, bottom, right; or the name of a rule that computes them, which equals no padding of ours."""
    rule = given.get("auto_pad", b"NOTSET").decode()
    return tuple(given.get("pads", (0, 0, 0, 0))) if rule in ("NOTSET", "VALID") else (rule,)
