"""GoogLeNet with batch normalisation: torchvision's ``googlenet``, for its weights.

The network of Szegedy et al., "Going deeper with convolutions" (2014), as TensorFlow's slim trained it and torchvision
took it over. Module names are torchvision's, so that its state dicts load as they are; where it leaves the paper, the
line says so.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.googlenet import TABLE_1
from models.networks.layers import ConvBNReLU, init_kaiming


class InceptionBN(nn.Module):
    """The module of the paper's figure 2(b), with batch norm; 3x3 in the branch that the paper gives a 5x5."""

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3_reduce: int,
        ch3x3: int,
        ch5x5_reduce: int,
        ch5x5: int,
        pool_proj: int,
    ) -> None:
        super().__init__()
        self.branch1 = ConvBNReLU(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            ConvBNReLU(in_channels, ch3x3_reduce, kernel_size=1),
            ConvBNReLU(ch3x3_reduce, ch3x3, kernel_size=3, padding=1),
        )
        self.branch3 = nn.Sequential(
            ConvBNReLU(in_channels, ch5x5_reduce, kernel_size=1),
            # 5x5 in the paper. The weights were trained with 3x3 by mistake, and bind us to it
            # (github.com/pytorch/vision/issues/906).
            ConvBNReLU(ch5x5_reduce, ch5x5, kernel_size=3, padding=1),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
            ConvBNReLU(in_channels, pool_proj, kernel_size=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryHeadBN(nn.Module):
    """The side classifier of section 5, as torchvision has it: adaptive average pool to 4x4."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        # 5x5 windows at stride 3 in the paper; on 14x14 these are 4x4, and begin at 0, 3, 7 and 10.
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = ConvBNReLU(in_channels, 128, kernel_size=1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(p=0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x (512 | 528) x 14 x 14
        x = self.conv(self.pool(x))
        # N x 128 x 4 x 4
        x = self.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc2(self.dropout(x))
        return logits


class GoogLeNetBN(nn.Module):
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
        self.inception3a = InceptionBN(*TABLE_1["3a"])
        self.inception3b = InceptionBN(*TABLE_1["3b"])
        self.maxpool3 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.inception4a = InceptionBN(*TABLE_1["4a"])
        self.inception4b = InceptionBN(*TABLE_1["4b"])
        self.inception4c = InceptionBN(*TABLE_1["4c"])
        self.inception4d = InceptionBN(*TABLE_1["4d"])
        self.inception4e = InceptionBN(*TABLE_1["4e"])
        # 3x3 in the paper; the weights were trained with 2x2.
        self.maxpool4 = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        self.inception5a = InceptionBN(*TABLE_1["5a"])
        self.inception5b = InceptionBN(*TABLE_1["5b"])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        # 0.4 in the paper.
        self.dropout = nn.Dropout(p=0.2)
        self.fc = nn.Linear(1024, num_classes)
        self.aux1 = AuxiliaryHeadBN(512, num_classes) if aux_heads else None
        self.aux2 = AuxiliaryHeadBN(528, num_classes) if aux_heads else None
        init_kaiming(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # N x 3 x 224 x 224
        x = self.maxpool1(self.conv1(x))
        # N x 64 x 56 x 56
        x = self.maxpool2(self.conv3(self.conv2(x)))
        # N x 192 x 28 x 28
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        # N x 480 x 14 x 14
        x4a = self.inception4a(x)
        # N x 512 x 14 x 14
        x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))
        # N x 528 x 14 x 14
        x = self.maxpool4(self.inception4e(x4d))
        # N x 832 x 7 x 7
        x = self.inception5b(self.inception5a(x))
        # N x 1024 x 7 x 7
        x = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        # N x num_classes
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return x, self.aux1(x4a), self.aux2(x4d)
        return x


def googlenet_bn(num_classes: int = 1000, *, aux_heads: bool = False) -> GoogLeNetBN:
    """torchvision's GoogLeNet."""
    return GoogLeNetBN(num_classes, aux_heads=aux_heads)
