"""Weights from the ONNX Model Zoo's graphs.

The zoo's files were converted from Caffe and have Caffe's tensor names, or meaningless ones, so weights are not matched
by name. This package's network is traced, and both graphs are walked from the logits backwards in step: nodes at the
same place must be the same layer with the same numbers, and the weights of one belong to the other. The order of a
concatenation's inputs tells the branches of an inception module apart.

The rounding of pools and the padding in averages are compared only if the geometries match. The conversion lost some
of Caffe's geometry (``Variant.graph_differs``); the original is kept unless ``as_graph`` asks for the graph's geometry.

In this file *theirs* is the zoo's node, *ours* the node of this package's network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx, nn

from models.checkpoints.catalogue import WrongWeightsError
from models.checkpoints.onnx_graph import OnnxGraph, Window, attributes
from models.networks.build import build
from models.networks.layers import LocalResponseNorm
from models.networks.tracing import output_shapes, trace
from models.networks.variants import Variant


def read_graph(
    variant: Variant, path: Path, *, as_graph: bool, arguments: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads the state dict of a variant from a zoo file, and the network's arguments that the graph states (its LRN).

    Raises:
        WrongWeightsError: the file is not a complete ONNX file, or its graph is another; the text says what differs.
    """
    graph = OnnxGraph(path)
    with torch.device("meta"):
        network = build(variant, num_classes=graph.num_classes, as_graph=as_graph, arguments=arguments)
    walk = _Walk(path, graph, network, variant, same_geometry=as_graph or not variant.graph_differs)
    walk.pair(graph.logits(), walk.logits)
    missing = [name for name in network.state_dict() if name not in walk.state]
    if missing:
        raise WrongWeightsError(f"{path} does not fit {variant.name}: nothing in the graph corresponds to {missing[0]}")
    return walk.state, walk.arguments


class _Walk:
    """Pairs the nodes of both graphs, from the logits back to the picture."""

    def __init__(
        self, path: Path, graph: OnnxGraph, network: nn.Module, variant: Variant, *, same_geometry: bool
    ) -> None:
        self.path, self.graph, self.name, self.same_geometry = path, graph, variant.name, same_geometry
        self.layers = dict(network.named_modules())
        self.logits: fx.Node = trace(network)[-1].all_input_nodes[0]
        picture = graph.input_shape if graph.input_shape and same_geometry else variant.input_shape
        try:
            self.shapes = output_shapes(network, picture)
        except RuntimeError as error:
            raise WrongWeightsError(
                f"{path}: {variant.name} takes no pictures of {picture}, as the graph does"
            ) from error
        self.state: dict[str, torch.Tensor] = {}
        self.arguments: dict[str, Any] = {}

    def pair(self, value: str, ours: fx.Node) -> None:
        """Walks from a pair of values (theirs by name) back to the picture."""
        todo, paired = [(value, ours)], dict[str, onnx.NodeProto | None]()
        while todo:
            theirs_name, ours = todo.pop()
            ours, flattens = self._behind_passes(ours)
            theirs = self.graph.node(theirs_name)
            if self.graph.reshapes(theirs_name) and not flattens and theirs_name != value:
                raise self._differs(theirs, ours, "its output is reshaped")
            if ours.name not in paired:
                paired[ours.name] = theirs
                todo += self._compare(theirs, ours)
            elif paired[ours.name] is not theirs:
                raise self._differs(theirs, ours, "another one stands there too")

    def _behind_passes(self, node: fx.Node) -> tuple[fx.Node, bool]:
        """Skips dropouts and flattenings, which a graph may lack. Returns the node before them, and whether a
        flattening was skipped."""
        flattens = False
        while True:
            if node.op == "call_function" and node.target is torch.flatten:
                flattens = True
            elif node.op != "call_module" or not isinstance(self.layers[str(node.target)], nn.Dropout):
                return node, flattens
            node = node.all_input_nodes[0]

    def _compare(self, theirs: onnx.NodeProto | None, ours: fx.Node) -> Iterator[tuple[str, fx.Node]]:
        """Checks one pair, takes its weights, and yields the pairs of its inputs."""
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
        if isinstance(layer, nn.BatchNorm2d):
            theirs = self._take_batch_norm(theirs, ours, layer)
        else:
            self._take(theirs, ours, layer)
        yield theirs.input[0], ours.all_input_nodes[0]

    def _take(self, theirs: onnx.NodeProto, ours: fx.Node, layer: nn.Module | None) -> None:
        given = attributes(theirs)
        match theirs.op_type, layer:
            case "Relu", nn.ReLU():
                return
            case "Conv", nn.Conv2d():
                window = self._window(theirs, ours, kernel=self.graph.weight(theirs.input[1]).shape[2:])
                wanted = _numbers(layer)
                wanted["padding"] *= 2
                self._same(theirs, ours, window.numbers() | {"padding": window.padding}, wanted)
                self._same(theirs, ours, {"groups": given.get("group", 1)}, {"groups": layer.groups})
                self._take_weights(theirs, ours, layer)
            case "Gemm", nn.Linear():
                plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
                self._same(theirs, ours, plain | given, plain)
                self._take_weights(theirs, ours, layer, transpose=not given.get("transB", 0))
            case "MaxPool", nn.MaxPool2d():
                self._pool(theirs, ours, layer)
            case "AveragePool", nn.AvgPool2d():
                self._pool(theirs, ours, layer)
            case "AveragePool", nn.AdaptiveAvgPool2d():
                self._whole_map(theirs, ours)
            case "GlobalAveragePool", nn.AdaptiveAvgPool2d():
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

    def _take_batch_norm(self, theirs: onnx.NodeProto, ours: fx.Node, layer: nn.BatchNorm2d) -> onnx.NodeProto:
        """Batch norm, and the scale and shift after it that Caffe makes a layer of its own; returns the norm's node.

        ((x - mean) / sd * weight + bias) * scale + shift has our form with weight * scale and bias * scale + shift.
        """
        scale, shift = np.ones(layer.num_features, np.float32), np.zeros(layer.num_features, np.float32)
        norm: onnx.NodeProto | None = theirs
        while norm is not None and norm.op_type in ("Mul", "Add"):
            constants = [value for value in norm.input if self.graph.is_constant(value)]
            if len(constants) != 1:
                raise self._differs(norm, ours, "it takes no constant")
            shape, wanted = self.graph.constant_shape(constants[0]), (layer.num_features, 1, 1)
            if shape not in (wanted, (1, *wanted)):
                raise self._differs(norm, ours, f"its constant is {shape} where {wanted} is expected")
            constant = self.graph.weight(constants[0]).reshape(-1)
            # The walk is backwards: the scale and shift collected so far come after this constant.
            scale, shift = (scale * constant, shift) if norm.op_type == "Mul" else (scale, shift + scale * constant)
            (value,) = (value for value in norm.input if value not in constants)
            norm = self.graph.node(value)
        if norm is None or norm.op_type != "BatchNormalization":
            raise self._differs(norm, ours, "another kind of layer")
        given = attributes(norm)
        found = {"epsilon": round(float(given.get("epsilon", 1e-5)), 9), "training_mode": given.get("training_mode", 0)}
        self._same(norm, ours, found, {"epsilon": round(layer.eps, 9), "training_mode": 0})
        self._take_weights(norm, ours, layer, ("weight", "bias", "running_mean", "running_var"))
        name = str(ours.target)
        self.state[f"{name}.weight"] *= torch.from_numpy(scale)
        self.state[f"{name}.bias"] = self.state[f"{name}.bias"] * torch.from_numpy(scale) + torch.from_numpy(shift)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(0)
        return norm

    def _window(self, theirs: onnx.NodeProto, ours: fx.Node, kernel: tuple[int, ...] | None = None) -> Window:
        try:
            return Window.read(theirs, kernel)
        except ValueError as error:
            raise self._differs(theirs, ours, str(error)) from error

    def _pool(self, theirs: onnx.NodeProto, ours: fx.Node, layer: nn.MaxPool2d | nn.AvgPool2d) -> None:
        """Compares the windows of a pool, the number of windows, and whether an average counts the padding."""
        window = self._window(theirs, ours)
        self._same(theirs, ours, window.numbers(), _numbers(layer))
        if not self.same_geometry:
            return
        before, after = self._size_before(ours), self.shapes[str(ours.target)][1:]
        self._same(theirs, ours, {"output size": window.output(before)}, {"output size": after})
        if isinstance(layer, nn.AvgPool2d):
            found = {"count_include_pad": window.count_include_pad}
            self._same(theirs, ours, found, {"count_include_pad": layer.count_include_pad})

    def _whole_map(self, theirs: onnx.NodeProto, ours: fx.Node) -> None:
        """Checks that an average pool is a global one: its window covers the map, and it does not count padding."""
        if not self.same_geometry:
            return
        window, before = self._window(theirs, ours), self._size_before(ours)
        if not window.covers(before):
            raise self._differs(theirs, ours, f"it does not average the whole map of {before}")

    def _size_before(self, ours: fx.Node) -> tuple[int, ...]:
        node = ours.all_input_nodes[0]
        # Skip concatenations, and ReLUs, since one may be used after many layers.
        while node.op != "call_module" or isinstance(self.layers[str(node.target)], nn.ReLU):
            node = node.all_input_nodes[0]
        return self.shapes[str(node.target)][1:]

    def _take_weights(
        self,
        theirs: onnx.NodeProto,
        ours: fx.Node,
        layer: nn.Module,
        names: tuple[str, ...] = ("weight", "bias"),
        *,
        transpose: bool = False,
    ) -> None:
        for name, value in zip(names, theirs.input[1:], strict=False):
            array = self.graph.weight(value)
            # If our layer has no bias, batch norm follows it and takes their bias into its mean:
            # (x + bias) - mean = x - (mean - bias).
            norm = next(iter(ours.users)) if getattr(layer, name) is None else None
            wanted = tuple((getattr(layer, name) if norm is None else self.state[f"{norm.target}.running_mean"]).shape)
            if name == "weight" and isinstance(layer, nn.Linear) and array.ndim >= 2:
                array = array.reshape(array.shape[-2:]) if array.ndim == 4 and array.shape[:2] == (1, 1) else array
                array = array.reshape(array.shape[0], -1)
                array = array.T if transpose else array
            if array.shape != wanted:
                raise self._differs(theirs, ours, f"its {name} is {array.shape} where {wanted} is expected")
            tensor = torch.from_numpy(np.array(array, dtype=np.float32))
            if norm is None:
                self.state[f"{ours.target}.{name}"] = tensor
            else:
                self.state[f"{norm.target}.running_mean"] -= tensor

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


def _numbers(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    """The numbers of a layer, to be compared with ``Window.numbers``."""

    def pair(value: Any) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else tuple(value)

    return {
        "kernel": pair(layer.kernel_size),
        "stride": pair(layer.stride),
        "padding": pair(layer.padding),
        "dilation": pair(getattr(layer, "dilation", 1)),
    }
