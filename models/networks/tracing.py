"""The graph of a network's layers, by torch.fx, and the shapes of their outputs, without arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

from models.networks.googlenet import HeadPool
from models.networks.layers import LocalResponseNorm
from models.networks.lenet import ScaledTanh, Subsampling, TableConv2d

#: Modules of this package that are one layer: the tracer does not look inside them, as with torch's own.
_LEAVES = (HeadPool, LocalResponseNorm, ScaledTanh, Subsampling, TableConv2d)

Shape = tuple[int, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> list[fx.Node]:
    """The nodes of a network's graph in running order; in training mode the auxiliary heads are among them."""
    return list(_Tracer().trace(network).nodes)


def output_shapes(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Shape]:
    """The output shape of every module by its name, without the batch.

    It runs the network on the meta device, which takes no memory and no arithmetic; weights and mode stay as they are.
    """
    shapes: dict[str, Shape] = {}

    def record(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                shapes[name] = tuple(output.shape[1:])

        return hook

    hooks = [module.register_forward_hook(record(name)) for name, module in network.named_modules()]
    try:
        # Two pictures, since batch norm in training mode refuses a single value for each channel.
        pictures = torch.empty(2, *input_shape, device="meta")
        # Meta tensors stand in for the network's own for this call: it keeps those, running means included.
        tensors = {name: torch.empty_like(tensor, device="meta") for name, tensor in network.state_dict().items()}
        torch.func.functional_call(network, tensors, (pictures,))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
