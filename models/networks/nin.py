"""Network in network, from Lin, Chen and Yan, "Network in network" (2013).

A small perceptron across channels, two 1x1 convolutions, follows every convolution ("cascaded cross channel parametric
pooling", section 3.1). The last layer has one map for each class, whose global average is the logit, and there are no
fully connected layers (section 3.2). The paper trains on CIFAR, SVHN and MNIST; this is the authors' ImageNet network
in Caffe's model zoo.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.layers import ConvReLU, init_kaiming


def _mlpconv(in_channels: int, maps: int, out: int, *, kernel_size: int, stride: int, padding: int) -> nn.Sequential:
    """A convolution and the two 1x1 convolutions on top of it, each with its ReLU."""
    return nn.Sequential(
        ConvReLU(in_channels, maps, kernel_size=kernel_size, stride=stride, padding=padding),
        ConvReLU(maps, maps, kernel_size=1),
        ConvReLU(maps, out, kernel_size=1),
    )


class NetworkInNetwork(nn.Module):
    """float (N, 3, 224, 224) -> logits (N, num_classes); 7,595,176 parameters with 1000 classes.

    Pools round up, as in Caffe: 54 -> 27 -> 13 -> 6.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.mlpconv1 = _mlpconv(3, 96, 96, kernel_size=11, stride=4, padding=0)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.mlpconv2 = _mlpconv(96, 256, 256, kernel_size=5, stride=1, padding=2)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.mlpconv3 = _mlpconv(256, 384, 384, kernel_size=3, stride=1, padding=1)
        self.pool3 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.dropout = nn.Dropout(p=0.5)
        # A ReLU comes before the average too, so that no logit is negative.
        self.mlpconv4 = _mlpconv(384, 1024, num_classes, kernel_size=3, stride=1, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        # Not Caffe's Gaussians (standard deviations 0.01 and 0.05): the signal would vanish over twelve layers.
        init_kaiming(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x 3 x 224 x 224
        x = self.pool1(self.mlpconv1(x))
        # N x 96 x 27 x 27
        x = self.pool2(self.mlpconv2(x))
        # N x 256 x 13 x 13
        x = self.pool3(self.mlpconv3(x))
        # N x 384 x 6 x 6
        x = self.mlpconv4(self.dropout(x))
        # N x num_classes x 6 x 6
        logits: torch.Tensor = torch.flatten(self.avgpool(x), 1)
        return logits


def nin(num_classes: int = 1000) -> NetworkInNetwork:
    """Network in network, for ImageNet."""
    return NetworkInNetwork(num_classes)
