"""GoogLeNet (Inception v1), from Szegedy et al., "Going deeper with convolutions" (2014).

22 layers with parameters, nine inception modules, local response normalisation around conv2 and no batch norm.
Pools round up, as in Caffe's reproduction: 112 -> 56 -> 28 -> 14 -> 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from models.networks.layers import LRN_CAFFE, ConvBNReLU, ConvReLU, LocalResponseNorm, LRNConstants, init_xavier

Conv = type[ConvReLU] | type[ConvBNReLU]

#: Table 1 of the paper: channels in, #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
TABLE_1: dict[str, tuple[int, int, int, int, int, int, int]] = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Figure 2(b): 1x1; 1x1 then 3x3; 1x1 then 5x5; 3x3 max pool then 1x1; concatenated in that order.

    Args:
        in_channels: channels of the input; the other numbers are the columns of ``TABLE_1``.
        conv: the convolution with its ReLU; ``ConvBNReLU`` has batch norm between them.
        kernel: the kernel of the third branch, 5x5 in the paper.
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3_reduce: int,
        ch3x3: int,
        ch5x5_reduce: int,
        ch5x5: int,
        pool_proj: int,
        *,
        conv: Conv = ConvReLU,
        kernel: int = 5,
    ) -> None:
        super().__init__()
        self.branch1 = conv(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            conv(in_channels, ch3x3_reduce, kernel_size=1),
            conv(ch3x3_reduce, ch3x3, kernel_size=3, padding=1),
        )
        self.branch3 = nn.Sequential(
            conv(in_channels, ch5x5_reduce, kernel_size=1),
            conv(ch5x5_reduce, ch5x5, kernel_size=kernel, padding=kernel // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
            conv(in_channels, pool_proj, kernel_size=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class HeadPool(nn.AvgPool2d):
    """The 5x5/3 average pool of section 5, 14x14 -> 4x4; maps of another size are pooled to 4x4 adaptively.

    On 14x14 adaptive windows would differ from the paper's: 4x4, beginning at 0, 3, 7 and 10.
    """

    def __init__(self) -> None:
        super().__init__(kernel_size=5, stride=3)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(input, 4) if self.adapts(input.shape) else super().forward(input)

    @staticmethod
    def adapts(shape: Sequence[int]) -> bool:
        """Whether maps (..., H, W) need the adaptive pool: 5x5 windows, 3 apart, make 4x4 of 14 to 16 pixels only."""
        return not all(14 <= side <= 16 for side in shape[-2:])


class AuxiliaryHead(nn.Module):
    """The side classifier of section 5: average pool to 4x4, 1x1 to 128, 1024 units, dropout 0.7, linear.

    Args:
        in_channels: maps of the module that it is attached to.
        num_classes: outputs.
        pool: the pool to 4x4; by default the one in the paper.
        conv: the convolution with its ReLU, as for ``Inception``.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, pool: nn.Module | None = None, conv: Conv = ConvReLU
    ) -> None:
        super().__init__()
        self.pool = pool or HeadPool()
        self.conv = conv(in_channels, 128, kernel_size=1)
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


class InceptionModules(nn.Module):
    """What GoogLeNet and its twin with batch norm have after their stems: table 1 from inception 3a on.

    A subclass makes its stem and pools, then calls ``_add_modules``; its ``forward`` ends in ``_classify``.
    """

    def _add_modules(
        self,
        inception: Callable[..., Inception],
        head: Callable[[int, int], AuxiliaryHead],
        *,
        num_classes: int,
        dropout: float,
        aux_heads: bool,
    ) -> None:
        """Adds the nine modules, the classifier, and the two auxiliary heads of section 5 if asked for.

        Args:
            inception: makes a module from a row of ``TABLE_1``.
            head: makes an auxiliary head from its number of input maps and of classes.
            num_classes: outputs of the classifier and of each head.
            dropout: rate before the classifier.
            aux_heads: whether there are auxiliary heads.
        """
        self.inception3a = inception(*TABLE_1["3a"])
        self.inception3b = inception(*TABLE_1["3b"])
        self.inception4a = inception(*TABLE_1["4a"])
        self.inception4b = inception(*TABLE_1["4b"])
        self.inception4c = inception(*TABLE_1["4c"])
        self.inception4d = inception(*TABLE_1["4d"])
        self.inception4e = inception(*TABLE_1["4e"])
        self.inception5a = inception(*TABLE_1["5a"])
        self.inception5b = inception(*TABLE_1["5b"])
        # The paper's pool is 7x7 on a 7x7 map. A global pool gives the same values there, and also takes the zoo
        # graph's 6x6, whose 7x7 pool leaves the empty row and column out, and the 2x2 of pictures of 64 pixels.
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(1024, num_classes)
        self.aux1 = head(512, num_classes) if aux_heads else None
        self.aux2 = head(528, num_classes) if aux_heads else None

    def _classify(
        self, x: torch.Tensor, pool3: nn.Module, pool4: nn.Module
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # N x 192 x 28 x 28
        x = self.inception3a(x)
        # N x 256 x 28 x 28
        x = pool3(self.inception3b(x))
        # N x 480 x 14 x 14
        x4a = self.inception4a(x)
        # N x 512 x 14 x 14
        x = self.inception4c(self.inception4b(x4a))
        # N x 512 x 14 x 14
        x4d = self.inception4d(x)
        # N x 528 x 14 x 14
        x = pool4(self.inception4e(x4d))
        # N x 832 x 7 x 7
        x = self.inception5b(self.inception5a(x))
        # N x 1024 x 7 x 7
        x = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        # N x num_classes
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return x, self.aux1(x4a), self.aux2(x4d)
        return x


class GoogLeNet(InceptionModules):
    """float (N, 3, 224, 224) -> logits (N, num_classes); 6,998,552 parameters with 1000 classes. Takes pictures
    of other sizes too.

    In training mode with auxiliary heads: (logits, logits of the head on 4a, logits of the head on 4d).

    Args:
        num_classes: outputs of the last layer.
        aux_heads: builds the two auxiliary heads of section 5 (13,378,280 parameters in all).
        lrn: constants of the normalisation layers; by default from Caffe, since the paper states none.
        as_graph: pools round down, 112 -> 55 -> 27 -> 13 -> 6: the ONNX Model Zoo's conversion of Caffe's network lost
            the rounding rule.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        aux_heads: bool = False,
        lrn: LRNConstants = LRN_CAFFE,
        as_graph: bool = False,
    ) -> None:
        super().__init__()

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=not as_graph)

        self.conv1 = ConvReLU(3, 64, kernel_size=7, stride=2, padding=3)
        self.pool1 = pool()
        self.norm1 = LocalResponseNorm(lrn)
        self.conv2_reduce = ConvReLU(64, 64, kernel_size=1)
        self.conv2 = ConvReLU(64, 192, kernel_size=3, padding=1)
        self.norm2 = LocalResponseNorm(lrn)
        self.pool2 = pool()
        self.pool3 = pool()
        self.pool4 = pool()
        self._add_modules(Inception, AuxiliaryHead, num_classes=num_classes, dropout=0.4, aux_heads=aux_heads)
        init_xavier(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # N x 3 x 224 x 224
        x = self.norm1(self.pool1(self.conv1(x)))
        # N x 64 x 56 x 56
        x = self.pool2(self.norm2(self.conv2(self.conv2_reduce(x))))
        # N x 192 x 28 x 28
        return self._classify(x, self.pool3, self.pool4)


def googlenet(
    num_classes: int = 1000,
    *,
    aux_heads: bool = False,
    lrn: LRNConstants = LRN_CAFFE,
    as_graph: bool = False,
) -> GoogLeNet:
    """GoogLeNet of 2014."""
    return GoogLeNet(num_classes, aux_heads=aux_heads, lrn=lrn, as_graph=as_graph)
