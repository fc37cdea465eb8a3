"""Costs of a network layer by layer, counted from the network itself.

torch.fx gives the layers and their connections, and a run on the meta device their shapes; the rest is arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import fx, nn

from models.networks.googlenet import HeadPool
from models.networks.layers import LocalResponseNorm
from models.networks.lenet import ScaledTanh, Subsampling, TableConv2d
from models.networks.memory import Costs
from models.networks.tracing import Shape, output_shapes, trace

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer. What works on its output in place (batch norm, ReLU, tanh) is part of it."""

    name: str
    """Module name in the network."""
    kind: str
    """convolution, linear, max pool, avg pool, subsampling, LRN or dropout."""
    kernel: Pair
    """Height and width of the window; (1, 1) where there is none."""
    stride: Pair
    output: Shape
    """Channels, height and width; or units."""
    params: int
    multiply_adds: int
    """For one picture. Only convolutions, fully connected layers and LeNet's subsampling have any."""
    activations: int
    """Elements of the output; 0 for layers that work in place."""
    receptive_field: Pair
    """Height and width that one output sees, in pixels of the picture; larger than the picture where padding counts."""
    jump: Pair
    """Pixels of the picture between two neighbouring outputs: the product of the strides so far."""
    depth: int
    """Layers with weights on the longest path from the picture to this layer, itself included."""
    sources: tuple[str, ...]
    """Names of the layers whose outputs it takes; empty if it takes the picture."""
    module: str | None
    """Name of the inception module that contains it."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """A network's layers in order, and their sums."""

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    @property
    def params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activations(self) -> int:
        """Elements, for one picture, of the input and the outputs of convolutions, pools and fully connected layers."""
        return prod(self.input_shape) + sum(layer.activations for layer in self.layers)

    @property
    def costs(self) -> Costs:
        return Costs(self.params, self.activations, self.multiply_adds)

    @property
    def depth(self) -> int:
        """Layers with weights on the longest path."""
        return max(layer.depth for layer in self.layers)


def parameter_count(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


def analyse(network: nn.Module, input_shape: tuple[int, int, int]) -> Analysis:
    """Analyses every layer of a network in its present mode, for pictures of (channels, height, width).

    In training mode the auxiliary heads are layers too. The network stays as it is, and nothing is computed.

    Raises:
        ValueError: a layer is of an unknown kind, or is used twice.
    """
    walk = _Walk(network, input_shape)
    for node in trace(network):
        walk.visit(node)
    return Analysis(input_shape, tuple(walk.layers.values()))


@dataclass(frozen=True, slots=True)
class _At:
    """What is known of a node's output."""

    shape: Shape
    receptive_field: Pair
    jump: Pair
    depth: int
    layers: tuple[str, ...]
    """The layers whose outputs it is; several after a concatenation."""


class _Walk:
    def __init__(self, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self.modules = dict(network.named_modules())
        self.shapes = output_shapes(network, input_shape)
        self.at: dict[fx.Node, _At] = {}
        self.layers: dict[str, Layer] = {}
        self.counted: set[str] = set()
        self.input_shape = input_shape

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.at[node] = _At(self.input_shape, (1, 1), (1, 1), 0, ())
        elif node.op == "call_module":
            self._layer(node, self.modules[str(node.target)], self.at[node.all_input_nodes[0]])
        elif node.op == "call_function" and node.target is torch.cat:
            self._concatenation(node)
        elif node.op == "call_function" and node.target is torch.flatten:
            self.at[node] = self.at[node.all_input_nodes[0]]
        elif node.op != "output":
            raise ValueError(f"cannot count a layer of this kind: {node.format_node()}")

    def _concatenation(self, node: fx.Node) -> None:
        branches = [self.at[source] for source in node.all_input_nodes]
        self.at[node] = _At(
            shape=(sum(branch.shape[0] for branch in branches), *branches[0].shape[1:]),
            receptive_field=_larger(branch.receptive_field for branch in branches),
            jump=branches[0].jump,
            depth=max(branch.depth for branch in branches),
            layers=tuple(name for branch in branches for name in branch.layers),
        )
        # The module whose forward concatenates is an inception module; the layers below it are its own.
        for owner in list(node.meta.get("nn_module_stack", ()))[-1:]:
            for name, layer in self.layers.items():
                if name.startswith(owner + "."):
                    self.layers[name] = replace(layer, module=owner)

    def _layer(self, node: fx.Node, module: nn.Module, before: _At) -> None:
        name = str(node.target)
        kind = _kind(module)
        params = parameter_count(module)
        if name in self.layers or (params and name in self.counted):
            raise ValueError(f"{name} is used twice, and a table has one place for it")
        self.counted.add(name)
        if kind is None:
            # It works in place on the layer before it.
            self.at[node] = before
            if params:
                if len(before.layers) != 1:
                    raise ValueError(f"{name} follows {len(before.layers)} layers, and is part of none")
                last = self.layers[before.layers[0]]
                self.layers[last.name] = replace(last, params=last.params + params)
            return
        kernel, stride = _window(module, before.shape)
        seen = _pair(
            (size - 1) * step + 1 for size, step in zip(kernel, _both(getattr(module, "dilation", 1)), strict=True)
        )
        output = self.shapes[name]
        in_place = kind in ("LRN", "dropout")
        after = _At(
            # The dropout before a fully connected layer takes the flattened map, and passes on the shape before that.
            shape=before.shape if in_place else output,
            receptive_field=_pair(
                field + (size - 1) * jump
                for field, size, jump in zip(before.receptive_field, seen, before.jump, strict=True)
            ),
            jump=_pair(jump * step for jump, step in zip(before.jump, stride, strict=True)),
            depth=before.depth + (kind in ("convolution", "linear", "subsampling")),
            layers=(name,),
        )
        self.at[node] = after
        self.layers[name] = Layer(
            name=name,
            kind=kind,
            kernel=kernel,
            stride=stride,
            output=output,
            params=params,
            multiply_adds=_multiply_adds(module, output),
            activations=0 if in_place else prod(output),
            receptive_field=after.receptive_field,
            jump=after.jump,
            depth=after.depth,
            sources=before.layers,
            module=None,
        )


def _kind(module: nn.Module) -> str | None:
    """The kind of a layer; None for a module that is part of the layer before it."""
    match module:
        case nn.Conv2d() | TableConv2d():
            return "convolution"
        case nn.Linear():
            return "linear"
        case nn.MaxPool2d():
            return "max pool"
        case nn.AvgPool2d() | nn.AdaptiveAvgPool2d():
            return "avg pool"
        case Subsampling():
            return "subsampling"
        case LocalResponseNorm():
            return "LRN"
        case nn.Dropout():
            return "dropout"
        case nn.ReLU() | nn.BatchNorm2d() | nn.Flatten() | ScaledTanh():
            return None
    raise ValueError(f"cannot count a layer of this kind: {type(module).__name__}")


def _window(module: nn.Module, before: Shape) -> tuple[Pair, Pair]:
    """Kernel and stride of a layer."""
    match module:
        case HeadPool() if module.adapts(before):
            return _adaptive(_pair(before[1:]), (4, 4))
        case nn.Conv2d() | nn.MaxPool2d() | nn.AvgPool2d():
            return _both(module.kernel_size), _both(module.stride)
        case TableConv2d():
            return _both(module.shape[2:]), (1, 1)
        case Subsampling():
            return (2, 2), (2, 2)
        case nn.AdaptiveAvgPool2d():
            return _adaptive(_pair(before[1:]), _both(module.output_size))
        case nn.Linear() if len(before) == 3:
            return _pair(before[1:]), (1, 1)
    return (1, 1), (1, 1)


def _adaptive(size: Pair, out: Pair) -> tuple[Pair, Pair]:
    """The largest window of an adaptive pool and its mean step. Window i is floor(i * size / out) to
    ceil((i + 1) * size / out)."""
    largest = (max(-(-(i + 1) * n // m) - i * n // m for i in range(m)) for n, m in zip(size, out, strict=True))
    return _pair(largest), _pair(n // m if m > 1 else 1 for n, m in zip(size, out, strict=True))


def _multiply_adds(module: nn.Module, output: Shape) -> int:
    match module:
        case nn.Conv2d() | TableConv2d():
            # Each weight is used once at each position. A TableConv2d has weights for its connections only.
            return module.weight.numel() * prod(output[1:])
        case nn.Linear():
            return module.weight.numel()
        case Subsampling():
            return prod(output)
    return 0


def _both(value: int | Iterable[int | None] | None) -> Pair:
    if isinstance(value, int):
        return (value, value)
    assert value is not None
    return _pair(int(size or 0) for size in value)


def _pair(values: Iterable[int]) -> Pair:
    height, width = values
    return (height, width)


def _larger(pairs: Iterable[Pair]) -> Pair:
    heights, widths = zip(*pairs, strict=True)
    return (max(heights), max(widths))
