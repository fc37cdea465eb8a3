"""GoogLeNet with batch normalisation: torchvision's ``googlenet``, for its weights.

The network of Szegedy et al., "Going deeper with convolutions" (2014), as TensorFlow's slim trained it and torchvision
publishes it. Module names are as in torchvision, so that its state dicts load as they are; comments say where it
differs from the paper.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.googlenet import AuxiliaryHead, Inception, InceptionModules
from models.networks.layers import ConvBNReLU, init_kaiming


def _inception(*row: int) -> Inception:
    # 5x5 in the paper. The weights were trained with 3x3 by mistake, and need it
    # (github.com/pytorch/vision/issues/906).
    return Inception(*row, conv=ConvBNReLU, kernel=3)


def _head(in_channels: int, num_classes: int) -> AuxiliaryHead:
    # 5x5 windows at stride 3 in the paper; on 14x14 these are 4x4, and begin at 0, 3, 7 and 10.
    return AuxiliaryHead(in_channels, num_classes, pool=nn.AdaptiveAvgPool2d(4), conv=ConvBNReLU)


class GoogLeNetBN(InceptionModules):
    """float (N, 3, 224, 224) -> logits (N, num_classes); 6,624,904 parameters with 1000 classes.

    In training mode with auxiliary heads: (logits, logits of the head on 4a, logits of the head on 4d).

    Args:
        num_classes: outputs of the last layer.
        aux_heads: builds the two auxiliary heads (13,004,888 parameters in all).
    """

    def __init__(self, num_classes: int = 1000, *, aux_heads: bool = False) -> None:
        super().__init__()
        # Batch norm takes the place of the paper's local response normalisation.
        self.conv1 = ConvBNReLU(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.conv2 = ConvBNReLU(64, 64, kernel_size=1)
        self.conv3 = ConvBNReLU(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.maxpool3 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        # 3x3 in the paper; the weights were trained with 2x2.
        self.maxpool4 = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        # The dropout is 0.4 in the paper.
        self._add_modules(_inception, _head, num_classes=num_classes, dropout=0.2, aux_heads=aux_heads)
        init_kaiming(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # N x 3 x 224 x 224
        x = self.maxpool1(self.conv1(x))
        # N x 64 x 56 x 56
        x = self.maxpool2(self.conv3(self.conv2(x)))
        # N x 192 x 28 x 28
        return self._classify(x, self.maxpool3, self.maxpool4)


def googlenet_bn(num_classes: int = 1000, *, aux_heads: bool = False) -> GoogLeNetBN:
    """torchvision's GoogLeNet."""
    return GoogLeNetBN(num_classes, aux_heads=aux_heads)
