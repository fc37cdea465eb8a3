"""What a network needs, counted from the network itself."""

from __future__ import annotations

import torch
from torch import nn


def parameter_count(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in network.parameters())


def activation_elements(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Elements of the input and of the outputs of convolutions, pools and fully connected layers, one picture.

    ReLU, local response normalisation and dropout work in place and are not counted. Runs on the meta device, so
    that it costs neither memory nor arithmetic.
    """
    # LeNet-5's layers of its own kinds count as what they are: a convolution and a pool.
    from models.lenet import Subsampling, TableConv2d

    counted = (
        nn.Conv2d,
        nn.Linear,
        nn.MaxPool2d,
        nn.AvgPool2d,
        nn.AdaptiveAvgPool2d,
        Subsampling,
        TableConv2d,
    )
    total = 0

    def count(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel()

    was_training = network.training
    network.eval()
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, counted)]
    try:
        picture = torch.empty(1, *input_shape, device="meta")
        # Lent, not moved: the network keeps its weights.
        tensors = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
        torch.func.functional_call(network, tensors, (picture,))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return total + picture.numel()
