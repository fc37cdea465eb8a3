"""Layers and initialisations that several networks share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class LRNConstants:
    """Local response normalisation across channels, in torch's convention: alpha is divided by size.

    The constants belong to a checkpoint, not to the network: any state dict fits any of them.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


#: Krizhevsky 2012, section 3.3: k = 2, n = 5, alpha = 1e-4 on the plain sum, which is 5e-4 / size.
LRN_PAPER = LRNConstants(alpha=5e-4, k=2.0)
#: What Caffe's models (BVLC AlexNet, BVLC GoogLeNet) were trained with.
LRN_CAFFE = LRNConstants()


class LocalResponseNorm(nn.Module):
    """b = a / (k + alpha / size * sum of a^2 over ``size`` neighbouring channels) ^ beta.

    Gives the values of ``torch.nn.LocalResponseNorm`` without its 5-D copy: it adds shifted slices of the padded
    squares.
    """

    def __init__(self, constants: LRNConstants) -> None:
        super().__init__()
        self.constants = constants

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c = self.constants
        if x.dtype in (torch.float16, torch.bfloat16):
            # Activations of Caffe's models reach thousands, whose squares overflow float16.
            wide: torch.Tensor = self.forward(x.float())
            return wide.to(x.dtype)
        squares = F.pad(x * x, (0, 0, 0, 0, c.size // 2, (c.size - 1) // 2))
        channels = x.shape[1]
        total = squares[:, :channels]
        for offset in range(1, c.size):
            total = total + squares[:, offset : offset + channels]
        return x / (c.k + c.alpha / c.size * total) ** c.beta

    def extra_repr(self) -> str:
        c = self.constants
        return f"size={c.size}, alpha={c.alpha}, beta={c.beta}, k={c.k}"


class ConvReLU(nn.Sequential):
    """A convolution with biases, then ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        self.relu = nn.ReLU(inplace=True)


class ConvBNReLU(nn.Sequential):
    """A convolution without biases, then batch normalisation, then ReLU.

    Subtracting the mean would cancel a bias, and beta takes its role (Ioffe and Szegedy 2015, section 3.2).

    Args:
        eps: added to the variance; weights need the value that they were trained with.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)
        self.relu = nn.ReLU(inplace=True)


def _layers_to_draw(network: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    """Yields the convolutions and linear layers that are not on the meta device. Meta tensors have no values;
    drawing on them would make torch import its compiler, which takes seconds."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            yield layer


def init_gaussian(network: nn.Module, std: float = 0.01) -> None:
    """Draws zero-mean Gaussian weights for convolutions and linear layers (Krizhevsky 2012, section 5); zero biases."""
    for layer in _layers_to_draw(network):
        nn.init.normal_(layer.weight, 0.0, std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def init_xavier(network: nn.Module) -> None:
    """Draws Glorot's uniform weights, with which Caffe's GoogLeNet starts; zero biases."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_kaiming(network: nn.Module) -> None:
    """Draws He's normal weights (fan out) for convolutions, Gaussian 0.01 for linear layers; zero biases."""
    init_gaussian(network)
    for layer in _layers_to_draw(network):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
