"""A network as a graph of its layers, by torch.fx, and the shapes in it, without arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

from models.networks.googlenet import HeadPool
from models.networks.layers import LocalResponseNorm
from models.networks.lenet import ScaledTanh, Subsampling, TableConv2d

#: Layers of our own that count as one, as torch's do.
_LEAVES = (HeadPool, LocalResponseNorm, ScaledTanh, Subsampling, TableConv2d)

Shape = tuple[int, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> list[fx.Node]:
    """The graph of a network in the mode it is in: training mode has the auxiliary heads."""
    return list(_Tracer().trace(network).nodes)


def output_shapes(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Shape]:
    """The output shape, without the batch, of every module by its name.

    Runs on the meta device, so that it costs neither memory nor arithmetic; the network keeps its weights and its mode.
    """
    shapes: dict[str, Shape] = {}

    def record(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                shapes[name] = tuple(output.shape[1:])

        return hook

    hooks = [module.register_forward_hook(record(name)) for name, module in network.named_modules()]
    try:
        # Two pictures: batch norm in training mode refuses a map of one value.
        pictures = torch.empty(2, *input_shape, device="meta")
        # Lent, not moved: the network keeps its tensors, running means and all.
        tensors = {name: torch.empty_like(tensor, device="meta") for name, tensor in network.state_dict().items()}
        torch.func.functional_call(network, tensors, (pictures,))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
